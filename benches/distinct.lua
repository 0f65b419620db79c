-- wrk's requests, each for a tag that no other names, so that whoever keeps what it fetched has to fetch and keep it.
-- The one argument tells this run from others.

local threads = 0

function setup(thread)
  thread:set("thread_number", threads)
  threads = threads + 1
end

function init(arguments)
  format = "/v2/library/busybox/manifests/" .. arguments[1] .. "-" .. thread_number .. "-%d?ns=docker.io"
  count = 0
end

function request()
  count = count + 1
  return wrk.format(nil, format:format(count))
end

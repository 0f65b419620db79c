'use strict';
// Everything that comes from the program is put into the page as text, never as markup: image names and what clients send are
// whatever somebody made up.
const EVERY = 5000;
// An hour of the steps of 5 s that the program keeps a quarter of.
const MOST_POINTS = 720;
const points = new Map();
let last = 0;

const by = (id) => document.getElementById(id);
function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  for (const child of children) if (child !== null && child !== undefined) element.append(child);
  return element;
}
function draw(name, attributes) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
function show(id, ...children) { by(id).replaceChildren(...children); }

const number = (value) => Math.round(value).toLocaleString('en');
function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${value >= 10 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}
function duration(seconds) {
  if (seconds < 1) return 'less than 1 s';
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}
function milliseconds(value) {
  if (value === null) return '-';
  if (value >= 1000) return `${(value / 1000).toFixed(1)} s`;
  return value >= 10 ? `${Math.round(value)} ms` : `${value.toFixed(1)} ms`;
}
const ago = (seconds) => seconds === null ? 'never' : `${duration(seconds)} ago`;
// As the log has it, so that a line can be found by it.
const time = (unix) => new Date(unix * 1000).toISOString().replace('.000', '');
const sum = (counts) => Object.values(counts).reduce((all, count) => all + count, 0);

function list(rows) {
  const entries = make('dl');
  for (const [name, value, kind] of rows) {
    if (value === null || value === undefined) continue;
    entries.append(make('dt', {}, name), make('dd', kind ? { class: kind } : {}, value));
  }
  return entries;
}
function card(kind, title, ...children) { return make('div', { class: `card ${kind}` }, title ? make('h3', {}, title) : null, ...children); }
function table(columns, rows, none) {
  if (rows.length === 0) return make('p', { class: 'soft' }, none);
  const attributes = (column) => column.kind ? { class: column.kind } : {};
  const head = make('tr', {}, ...columns.map((column) => make('th', { scope: 'col', ...attributes(column) }, column.name)));
  const body = rows.map((row) => make('tr', {}, ...columns.map((column, at) =>
    make('td', { ...attributes(column), 'data-label': column.name }, column.code ? make('code', {}, row[at]) : row[at]))));
  return make('table', {}, make('thead', {}, head), make('tbody', {}, ...body));
}

const TOKEN_SOON = 900;
function registry(told) {
  const kind = told.serves === 'nothing' ? 'bad' : told.serves === 'kept' || told.message || told.down || told.paused.length ? 'warn' : 'good';
  const words = told.serves !== 'nothing' && told.down ? 'the registry is down, only what is kept is served' : { all: 'served', kept: 'only what is kept is served', nothing: 'nothing is served' }[told.serves];
  const life = (token) => token === null ? 'none' : token.left_seconds > 0
    ? `valid for ${duration(token.left_seconds)}, ${duration(token.age_seconds)} old` : 'has ended';
  const hurts = (token) => token !== null && token.left_seconds < TOKEN_SOON ? 'warn' : '';
  const rows = [
    ['State', words, kind],
    ['Identity', told.identity.id === null ? told.identity.kind : `${told.identity.kind}, ${told.identity.id}`],
    ['Sign-in', life(told.token.refresh), hurts(told.token.refresh)],
    told.token.repositories > 0 ? ['Tokens', `of ${number(told.token.repositories)} repositories`]
      : ['Token', life(told.token.access), hurts(told.token.access)],
    ['Last answer', ago(told.last_success_seconds)],
    ['Last failure', told.last_failure === null ? 'none of the last failed requests' : `${time(told.last_failure.at)}, ${told.last_failure.error}`],
    ['Pauses', told.pauses > 0 ? `${number(told.pauses)}, asked for by the registry` : null],
    ['Stale, in trouble', told.stale > 0 ? number(told.stale) : null],
    ['Budget', told.budget === null ? null : `${number(told.budget.reads_per_minute)} reads a minute, ` +
      (told.budget.wait_seconds > 0 ? `the next waits ${duration(told.budget.wait_seconds)}` : 'none waits')],
  ];
  const says = [];
  if (told.message) {
    const since = told.since ? ` Since ${told.since}.` : '';
    const whose = told.permanent ? ' Somebody has to act; it is tried again every now and then.' : ' It is tried again by itself.';
    says.push(`${told.message}.${since}${told.hop ? whose : ''}`);
  }
  // Of a certificate, the cause itself says what to do.
  const look = /certificate/.test(told.down) ? '' : " Check the network, DNS, and Azure's status page.";
  if (told.down) says.push(`The registry is asked until it is back: ${told.down}.${look}`);
  const paused = told.paused.map((one) => `${one.call} for another ${duration(one.left_seconds)}`);
  if (paused.length) says.push(`The registry limits requests and is not asked for ${paused.join(', and not for ')}. Set limits.registry_reads_per_minute, or raise the lifetimes of the cache.`);
  return card(kind, told.domain, list(rows), ...says.map((text) => make('p', { class: 'says' }, text)));
}

// Points that follow each other and have a value: of what lies between, nothing is known.
function runs(shown, key, step) {
  const all = [];
  let before = null;
  for (const point of shown) {
    if (point[key] !== null) {
      if (before === null || point.at - before > 1.5 * step) all.push([]);
      all[all.length - 1].push(point);
      before = point.at;
    } else before = null;
  }
  return all;
}

function plot(title, now, step, series, label) {
  const shown = [...points.values()];
  const width = 300, height = 60;
  const [first, end] = [shown[0]?.at ?? 0, shown[shown.length - 1]?.at ?? 0];
  const most = Math.max(1e-9, ...series.flatMap((one) => shown.map((point) => point[one.at] ?? 0)));
  const image = draw('svg', { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': `${title}: ${now}` });
  image.append(draw('line', { class: 'axis', x1: 0, x2: width, y1: height - 0.5, y2: height - 0.5 }));
  for (const one of series) {
    for (const run of runs(shown, one.at, step)) {
      const line = run.map((point) => `${((point.at - first) * width / Math.max(1, end - first)).toFixed(1)},${(height - 1 - point[one.at] / most * (height - 4)).toFixed(1)}`);
      // A line of one point is drawn as a dot.
      image.append(draw('polyline', { class: one.class, points: (line.length > 1 ? line : [line[0], line[0]]).join(' ') }));
    }
  }
  const keys = series.map((one) => make('span', { class: `key-${one.class}` }, `${one.name}  `));
  return card('', title, make('p', { class: 'big' }, now), image, make('p', { class: 'soft' }, ...keys, label(most)));
}

function plots(status) {
  for (const point of status.history.points) points.set(point.at, point);
  for (const at of points.keys()) if (points.size > MOST_POINTS) points.delete(at);
  const step = status.history.step_seconds;
  const shown = [...points.values()];
  const newest = shown[shown.length - 1] || { rate: 0, failed: 0, median: null, slow: null };
  const over = `highest of ${duration(shown.length * step)}: `;
  show('plots',
    plot('Requests a second', newest.rate.toFixed(1), step, [{ at: 'rate', class: 'plot', name: 'all' }, { at: 'failed', class: 'second', name: 'failed' }],
      (most) => `${over}${most.toFixed(1)}`),
    plot('Time to the first byte', newest.median === null ? 'no request' : `${milliseconds(newest.median)} median, ${milliseconds(newest.slow)} for 99 %`, step,
      [{ at: 'median', class: 'plot', name: 'median' }, { at: 'slow', class: 'second', name: '99 %' }], (most) => `${over}${milliseconds(most)}`),
    card('', 'Since the start', list([
      ['Requests', number(status.requests.total)],
      ['Failed', number(status.requests.failed), status.requests.failed > 0 ? 'warn' : ''],
      ['Under way', `${number(status.load.requests.now)} of ${number(status.load.requests.max)}`],
      ['Refused', number(sum(status.load.refused) + status.load.requests.refused + status.load.connections.refused)],
      ['Memory', status.process.resident_bytes === null ? null : bytes(status.process.resident_bytes)],
      ['Files', status.process.descriptors === null ? null : `${number(status.process.descriptors)} of ${number(status.process.max_descriptors)}`],
    ])),
    ...refused(status.load));
}

// What is refused before anything is asked for it. Of a limit that engines meet the last hour is told: they go to the source then.
function refused(load) {
  const lately = (reason) => load.limited_last_hour[reason] > 0 ? `, ${number(load.limited_last_hour[reason])} in the last hour` : '';
  const rows = [
    ['connections at once', load.connections.refused], ['requests at once', load.requests.refused],
    ...Object.entries(load.refused),
  ].filter(([, count]) => count > 0);
  if (rows.length === 0) return [];
  return [card(sum(load.limited_last_hour) > 0 ? 'warn' : '', 'Refused',
    list(rows.map(([reason, count]) => [reason.replaceAll('_', ' '), `${number(count)}${lately(reason)}`, lately(reason) ? 'warn' : ''])))];
}

function cache(told) {
  const memory = told.memory;
  const isOff = memory.max_bytes === 0;
  const here = sum(told.requests.hits) + told.requests.collapsed + told.requests.stale;
  const all = here + told.requests.misses + sum(told.requests.passed);
  show('cache',
    card('', 'Reads saved', make('p', { class: 'big' }, number(told.reads_saved)),
      make('p', { class: 'soft' }, isOff ? 'the cache is off' : all === 0 ? 'nothing was asked for yet' : `${Math.round(here / all * 100)} % of ${number(all)} requests waited for no read of their own`)),
    isOff ? card('', 'Memory', make('p', {}, 'the cache is off')) :
      card('', 'Memory', make('p', {}, `${bytes(memory.bytes)} of ${bytes(memory.max_bytes)} in ${number(memory.entries)} entries`),
        make('progress', { max: memory.max_bytes, value: memory.bytes, 'aria-label': 'memory used by the cache' }),
        make('p', { class: 'soft' }, `${number(memory.evicted_entries)} entries had to go for others`)),
    card('', 'Answers', list([
      ...Object.entries(told.requests.hits).filter(([, count]) => count > 0).map(([kind, count]) => [`Kept ${kind}`, number(count)]),
      ['Shared', number(told.requests.collapsed)], ['Past their time', number(told.requests.stale)], ['Asked for', number(told.requests.misses)],
      ...Object.entries(told.requests.passed).filter(([, count]) => count > 0).map(([reason, count]) => [`Passed: ${reason}`, number(count)]),
    ])));
}

function render(status) {
  show('build', `version ${status.version} (${status.build}), for ${duration(status.uptime_seconds)}`);
  const nothing = status.registries.some((one) => one.serves === 'nothing') || status.stopping;
  const trouble = status.registries.some((one) => one.serves !== 'all' || one.message || one.down || one.paused.length);
  const verdict = by('verdict');
  verdict.className = nothing ? 'bad' : trouble ? 'warn' : 'good';
  verdict.textContent = status.summary === 'ready' && trouble ? 'ready, but a registry is in trouble' : status.summary;
  show('registries', ...status.registries.map(registry));
  show('routes', table([{ name: 'Route', code: true }, { name: 'Registry', code: true }, { name: 'Refused in the last hour', kind: 'number' }, { name: 'Mostly because' }, { name: 'Clients then' }],
    status.routes.map((one) => [one.route, one.registry, number(one.refused_last_hour), one.because || '-', one.on_failure === 'closed' ? 'fail' : 'ask the source, if they may']),
    'no route'));
  plots(status);
  cache(status.cache);
  show('failures', table(
    [{ name: 'When', kind: 'whole' }, { name: 'Status', kind: 'number' }, { name: 'Request', code: true }, { name: 'Why' }, { name: 'Client', code: true, kind: 'whole' }, { name: 'Correlation id', code: true }],
    status.failures.map((one) => [time(one.at), one.status === 0 ? 'none' : String(one.status), `${one.method} ${one.path}`, one.error, one.client || '-', one.correlation || '-']),
    'no request that was let in has failed'));
  show('images', table([{ name: 'Image', code: true }, { name: 'Route', code: true }, { name: 'Pulls', kind: 'number' }],
    status.images.map((one) => [one.image, one.route, number(one.pulls)]), 'no image was pulled yet'));
  show('clients', card('', 'Connections', make('p', { class: 'big' }, number(status.load.connections.now)),
    make('p', { class: 'soft' }, `of ${number(status.load.connections.max)} at most, ${number(status.opening.accepted.clients)} since the start`)),
  ...status.opening.certificates.map((one) => {
    const left = one.end - Date.now() / 1000;
    return card(left < 0 ? 'bad' : left < 7 * 86400 ? 'warn' : '', 'Certificate',
      make('p', { class: 'big' }, left < 0 ? 'has ended' : duration(left)),
      make('p', { class: 'soft' }, left < 0 ? `${one.address}: clients refuse it` : `left, of ${one.address}`));
  }));
  show('addresses', table([{ name: 'Client', code: true }, { name: 'Requests', kind: 'number' }, { name: 'Last request', kind: 'number' }],
    status.clients.map((one) => [one.client, number(one.requests), ago(one.last_seconds)]), 'no client has come yet'));
  last = Date.now();
  document.body.classList.remove('old');
  document.body.dataset.updated = String(status.uptime_seconds);
}

async function update() {
  try {
    const answer = await fetch('/status', { cache: 'no-store' });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    render(await answer.json());
  } catch (cause) {
    const verdict = by('verdict');
    verdict.className = 'bad';
    document.body.classList.add('old');
    verdict.textContent = `this page has had no answer ${last === 0 ? 'yet' : `for ${duration((Date.now() - last) / 1000)}`}: ${cause.message}`;
  }
  setTimeout(update, EVERY);
}
update();

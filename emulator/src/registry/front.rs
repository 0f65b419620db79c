//! What stands in front of the registry: nginx, which refuses a request header that does not fit its buffers.
//!
//! Sources: Azure/acr#797 (a Basic password from 6,090 characters on, which makes a line of more than 8 KiB) and
//! regclient#797, for page and status; nginx's `large_client_header_buffers`, 4 of 8 KiB by default, for the limits.

use hyper::HeaderMap;

use crate::answer::Answer;

/// One buffer: the limit of a header line, with its line end.
const LONGEST_LINE: usize = 8 * 1024;
/// All buffers together.
const LONGEST_HEADER: usize = 4 * LONGEST_LINE;

/// The error page, after which the connection ends; `None` if the header fits.
pub(super) fn refusal(headers: &HeaderMap) -> Option<Answer> {
    let lines = || headers.iter().map(|(name, value)| name.as_str().len() + ": \r\n".len() + value.len());
    if lines().all(|length| length <= LONGEST_LINE) && lines().sum::<usize>() <= LONGEST_HEADER {
        return None;
    }
    let page = [
        "<html>",
        "<head><title>400 Request Header Or Cookie Too Large</title></head>",
        "<body>",
        "<center><h1>400 Bad Request</h1></center>",
        "<center>Request Header Or Cookie Too Large</center>",
        "<hr><center>AzureContainerRegistry</center>",
        "</body>",
        "</html>",
        "",
    ];
    let answer = Answer::new(400)
        .header("Server", "AzureContainerRegistry")
        .header("Content-Type", "text/html")
        .header("Connection", "close")
        .body(page.join("\r\n"));
    Some(answer)
}

// The head parser: whatever the bytes and however they are cut, one answer; what is admitted and written again is one
// message with one framing, and means what it meant.

import Foundation
import FuzzKit

let dictionary = [
    "\r\n", "\n", "\r", "\r\n\r\n", " ", "\t", ":", ": ", ",", ";", "\0", "\u{7f}", "\u{80}", "GET / HTTP/1.1\r\n",
    "POST ", "OPTIONS * ", "CONNECT ", "HTTP/1.0", "HTTP/1.1", "HTTP/2.0", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 101 ",
    "HTTP/1.1 204 \r\n", "Host: a.test\r\n", "Host: ", "Content-Length: 0\r\n", "Content-Length: 5\r\n",
    "Content-Length: 5, 5\r\n", "Content-Length: +5\r\n", "content-length: 18446744073709551616\r\n",
    "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: gzip, chunked\r\n", "transfer-encoding: chunked, chunked\r\n",
    "Transfer-Encoding : chunked\r\n", "Connection: close\r\n", "Connection: keep-alive, x\r\n",
    "Connection: Upgrade\r\nUpgrade: websocket\r\n", "Connection: content-length\r\n", "Connection: host\r\n",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "Expect: 100-continue\r\n", "TE: trailers\r\n",
    "X-Forwarded-For: 1.2.3.4\r\n", "X-Request-ID: ", "Cookie: a=b\r\n", " folded\r\n", "http://a.test/", "/%2e%2e/",
    "//", "?", "#", "@", "[::1]:80",
]

let fuzzer = Fuzzer(name: "FuzzHead", dictionary: dictionary, longest: 4 << 10)
exit(fuzzer.run(CommandLine.arguments, check: FuzzChecks.head))

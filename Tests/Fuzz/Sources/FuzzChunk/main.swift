// The chunk decoder: in pieces it decodes what it decodes whole, it never reads past the end of the body, and coded again
// the body is the same.

import Foundation
import FuzzKit

let dictionary = [
    "\r\n", "\n", "\r", "0\r\n\r\n", "0\r\n", "1\r\na\r\n", "5\r\nhello\r\n", "00000000005\r\n", "ffffffffffffffff\r\n",
    "10000000000000000\r\n", "7fffffffffffffff\r\n", "-1\r\n", "+1\r\n", "0x1\r\n", " 1\r\n", "1 \r\n", ";", ";a",
    ";a=b", ";a=\"b\"", ";a=\"\r\n\"", "\0", "X: y\r\n", "X: y\n", " y\r\n", "Content-Length: 5\r\n", "Trailer: x\r\n",
    "Transfer-Encoding: chunked\r\n",
]

let fuzzer = Fuzzer(name: "FuzzChunk", dictionary: dictionary, longest: 4 << 10)
exit(fuzzer.run(CommandLine.arguments, check: FuzzChecks.chunks))

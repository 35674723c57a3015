// What a connection begins with, before anything is known of it: PROXY protocol headers and ClientHellos.

import Foundation
import FuzzKit

let dictionary = [
    "PROXY ", "TCP4 ", "TCP6 ", "UNKNOWN", "\r\n", "\r", "\n", " ", "127.0.0.1 ", "::1 ", "::ffff:1.2.3.4 ", "65535",
    "0",
    "\r\n\r\n\0\r\nQUIT\n", "\r\n\r\n\0\r\nQUIT\n!", "\u{16}\u{3}\u{1}", "\u{16}\u{3}\u{3}\0\u{1}", "\0\0", "\u{1}\0",
    "shop.test",
]

let fuzzer = Fuzzer(name: "FuzzOpening", dictionary: dictionary, longest: 6 << 10)
exit(fuzzer.run(CommandLine.arguments, check: OpeningChecks.opening))

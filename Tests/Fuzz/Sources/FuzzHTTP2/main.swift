// A server's session of HTTP/2: in pieces it says what it says whole, every event is of a stream that there is, what it
// writes is frames, and a session at fault ends.

import Foundation
import FuzzKit

/// Records: type (bit 7: with a payload of ours), flags, stream, length.
let records: [[UInt8]] = [
    [0x81, 5, 1, 0], [0x81, 4, 1, 1], [0x81, 4, 3, 2], [0x81, 4, 5, 3], [0x81, 5, 1, 4], [0x81, 5, 7, 5],
    [0x81, 5, 9, 6],
    [0x81, 5, 11, 7], [0x81, 5, 13, 8], [0x81, 1, 15, 0], [9, 4, 15, 0], [0x80, 0, 1, 9], [0x80, 1, 1, 1],
    [0, 1, 3, 3, 97, 98, 99], [0, 9, 1, 4, 2, 97, 0, 0], [2, 0, 1, 5, 0, 0, 0, 0, 1], [3, 0, 1, 4, 0, 0, 0, 8],
    [4, 0, 0, 0], [4, 1, 0, 0], [4, 0, 0, 6, 0, 4, 0, 0, 0, 10], [4, 0, 0, 6, 0, 5, 0, 0, 0x80, 0],
    [6, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8], [6, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0], [7, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0],
    [8, 0, 0, 4, 0, 0, 255, 255], [8, 0, 1, 4, 0, 0, 0, 1], [8, 0, 1, 4, 0x7f, 255, 255, 255], [14, 0, 1, 2, 1, 2],
]
// A word of the dictionary is text; these are bytes below 128 or of two of UTF-8, so the records go in as seeds.
let manners: [UInt8] = [0b111, 0b11111, 0, 0b100001]
let seeds: [[UInt8]] = records.flatMap { record in manners.map { [7, $0] + record } }
let words = [
    "\u{1}\u{5}\u{3}", "\u{1}\u{4}\u{5}", "\u{0}\u{1}\u{1}", "\u{3}\u{0}\u{1}\u{4}\0\0\0\u{8}", "\u{4}\0\0\0",
    "\u{4}\u{1}\0\0",
    "\u{6}\0\0\u{8}12345678", "\u{8}\0\0\u{4}\0\0\u{1}\0", "\u{9}\u{4}\u{1}\0", "\0\u{1}x\u{1}y", "\0\u{4}:abc\0",
]
let fuzzer = Fuzzer(name: "FuzzHTTP2", seeds: seeds, dictionary: words, longest: 4 << 10)
exit(fuzzer.run(CommandLine.arguments, check: FuzzChecks.session))

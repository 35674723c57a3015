// See FuzzChecks.swift. The seeds are programs of all lengths, and the bundled plugins as texts.

import Foundation
import FuzzKit

func seeds() -> [[UInt8]] {
    var generator = SeededGenerator(seed: 7)
    var seeds: [[UInt8]] = (0..<400).map { number in
        [0, number % 4 == 0 ? UInt8.random(in: 1...255, using: &generator) : 0]
            + (0..<(8 + number)).map { _ in UInt8.random(in: 0...255, using: &generator) }
    }
    var plugins = URL(fileURLWithPath: #filePath)
    for _ in 0..<5 { plugins.deleteLastPathComponent() }
    plugins.appendPathComponent("plugins")
    for name in ((try? FileManager.default.contentsOfDirectory(atPath: plugins.path)) ?? []).sorted() {
        let file = plugins.appendingPathComponent(name).appendingPathComponent("init.lua")
        if let text = try? Data(contentsOf: file) { seeds.append(Array(text)) }
    }
    return seeds
}

let dictionary = [
    "\n", " ", "function(req, ctx) ", "function(req, res, ctx) ", "return ", " end", "local x <close> = ", "goto a",
    "::a::",
    "for i = 1, 1e9 do ", "while true do ", "repeat ", "until false", "pcall(", "coroutine.wrap(", "error(",
    "setmetatable({}, ",
    "string.rep('x', 1e9)", "('x'):rep(1e6):gsub('.', '%0%0')", "table.concat({}, ',', 1, 1e9)",
    "table.unpack({}, 1, 1e7)",
    "req.headers:set('x', 'y')", "req.path = '/'", "res.status = 500", "moongate.respond(200)",
    "moongate.json.decode('[')",
    "ctx.upstream:use(ctx.config.canary)", "(", ")", "{", "}", "[[", "]]", "--[[", "\"", "'", "\\", "\0", "\u{7f}",
    "..", "...",
    "//", "~", "<<", "0x7fffffffffffffff", "1e308", "_ENV", "_G", "__index", "__gc", "__mode", "__close", "__name",
]

let fuzzer = Fuzzer(name: "FuzzLua", seeds: seeds(), dictionary: dictionary, longest: 8 << 10)
exit(fuzzer.run(CommandLine.arguments, check: FuzzChecks.lua))

import Testing

@testable import Scripting

/// What a nil that was called may have meant.
@Suite struct NilHintTests {
    static let functions = ["split", "log.info", "log.warn", "time.now", "hash.sha256"]

    @Test(arguments: [
        ("moongate.spit{}", "call", "field", "spit", "did you mean moongate.split?"),
        ("moongate.log.inof('x')", "call", "field", "inof", "did you mean moongate.log.info?"),
        ("moongate.lgo.info('x')", "index", "field", "lgo", "did you mean moongate.log?"),
        ("moongate.jsno.encode(1)", "index", "field", "jsno", "did you mean moongate.json?"),
        ("moongate.redirct(1)", "call", "field", "redirct", "did you mean moongate.redirect?"),
        ("print('x')", "call", "global", "print", "use moongate.log.info(message)"),
        ("os.time()", "index", "global", "os", "there is no os here; moongate.time.now() tells the time"),
        (
            "ngx.say()", "index", "global", "ngx",
            "this is not OpenResty: a phase gets req and ctx, and moongate holds the functions"
        ),
        ("iparis(t)", "call", "global", "iparis", "did you mean ipairs?"),
        ("moogate.split{}", "index", "global", "moogate", "did you mean moongate?"),
        ("local x = config.spit()", "call", "field", "spit", nil),
        ("moongate.quantum()", "call", "field", "quantum", nil),
        ("frobnicate()", "call", "global", "frobnicate", nil), ("req:get()", "call", "method", "get", nil),
    ])
    func hints(_ line: String, _ verb: String, _ kind: String, _ name: String, _ expected: String?) {
        let message = "main.lua:1: attempt to \(verb) a nil value (\(kind) '\(name)')"
        #expect(NilHint.of(message, line: line, functions: Self.functions) == expected)
    }

    @Test func nothingElse() {
        #expect(NilHint.of("main.lua:1: kaputt", line: "moongate.spit", functions: Self.functions) == nil)
        #expect(NilHint.of("attempt to call a nil value (", line: "", functions: []) == nil)
        #expect(NilHint.of("attempt to call a nil value (global ')", line: nil, functions: []) == nil)
    }
}

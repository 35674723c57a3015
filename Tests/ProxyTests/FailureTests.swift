import Model
import Testing

@testable import Proxy

@Suite struct FailureTests {
    @Test(arguments: [
        ("", ErrorPage.Form.text), ("*/*", .text), ("text/html", .html), ("application/json", .json),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", .html),
        ("application/json;q=0, text/html", .html), ("application/json; q=0.0, text/plain", .text),
        ("application/json;q=0.5", .json), ("image/png, application/problem+json", .json), (",,;,", .text),
        ("TEXT/HTML;Q=1", .html), ("text/html;q=", .html), ("text/html;q=0", .text),
    ])
    func readsAccept(accept: String, form: ErrorPage.Form) {
        #expect(ErrorPage.form(accept: Array(accept.utf8).span) == form)
    }

    @Test(arguments: FailureReason.allCases)
    func everyReasonHasAStatusWithAPhrase(reason: FailureReason) {
        #expect(reason.status >= 400 && reason.status < 600)
        // 499 is never sent: the client is gone.
        if reason != .clientClosed { #expect(ErrorPage.phrase(reason.status).utf8CodeUnitCount > 0) }
        var body: [UInt8] = []
        ErrorPage.write(status: reason.status, form: .json, into: &body)
        #expect(String(decoding: body, as: UTF8.self).hasPrefix("{\"status\":\(reason.status),"))
    }
}

import Controller
import Testing

@Suite struct ControllerStateTests {
    @Test func metrics() {
        var state = ControllerState()
        state.figures.publications = 3
        state.figures.eventsFailed = 2
        state.figures.lastTranslation = .milliseconds(1_500)
        let up = state.prometheusText(now: .seconds(100))
        #expect(up.contains("\nmoongate_api_server_up 1\n"))
        #expect(up.contains("\nmoongate_publications_total 3\n"))
        #expect(up.contains("\nmoongate_translation_seconds 1.5\n"))
        #expect(up.contains("\nmoongate_events_total{result=\"failed\"} 2\n"))
        #expect(up.hasSuffix("\n"))
        state.outageSince = .seconds(40)
        let down = state.prometheusText(now: .seconds(100))
        #expect(down.contains("\nmoongate_api_server_up 0\n"))
        #expect(down.contains("\nmoongate_api_server_outage_seconds 60.0\n"))
        // Each series is described once, before its value.
        let lines = down.split(separator: "\n")
        let series = Set(lines.filter { !$0.hasPrefix("#") }.map { $0.prefix { $0 != " " && $0 != "{" } })
        for word in ["# TYPE", "# HELP"] {
            let described = lines.filter { $0.hasPrefix(word) }.map { $0.split(separator: " ")[2] }
            #expect(described.count == series.count)
            #expect(Set(described) == series)
        }
    }
}

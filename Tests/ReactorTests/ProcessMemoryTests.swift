// What is given back comes back as it was.
import Testing

@testable import Reactor

/// Relocated when it was loaded, and only read since: such pages are private to the process and must not be dropped.
private let tables: [@Sendable (Int) -> Int] = [{ $0 + 1 }, { $0 * 2 }, { $0 - 3 }]
private let text = String(repeating: "moongate", count: 64) + #"constant bytes of the program's file"#

@Suite struct ProcessMemoryTests {
    private static func look() -> [Int] {
        var found = tables.map { $0(20) }
        found.append(text.utf8.reduce(0) { $0 &* 31 &+ Int($1) })
        // Conformances and metadata are found through relocated tables.
        found.append(((7 as Any) as? any CustomStringConvertible)?.description.count ?? -1)
        found.append([3, 1, 2].sorted().first ?? -1)
        return found
    }

    @Test func whatIsGivenBackComesBackAsItWas() async {
        let before = Self.look()
        // Others run meanwhile, in code that goes away under them.
        await withTaskGroup(of: Bool.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    for _ in 0..<200 where Self.look() != before { return false }
                    return true
                }
            }
            for _ in 0..<20 { ProcessMemory.settle() }
            for await same in group { #expect(same) }
        }
        #expect(Self.look() == before)
    }
}

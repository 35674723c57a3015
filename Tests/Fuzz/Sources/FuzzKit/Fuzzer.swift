// A small deterministic mutation fuzzer: no instrumentation, but seeds that are already interesting, a dictionary of what
// breaks formats, and properties that say more than "did not crash".

internal import Foundation

/// SplitMix64: the same numbers from the same seed, on every machine.
package struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    package init(seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}

package struct Fuzzer {
    private let name: String
    private let seeds: [[UInt8]]
    private let dictionary: [[UInt8]]
    /// An input may take this long; more is a finding too.
    private let patience: Duration
    private let longest: Int

    /// Starts from `seeds` and from the files of Seeds/NAME and FailCases/NAME.
    package init(
        name: String, seeds: [[UInt8]] = [], dictionary: [String], patience: Duration = .seconds(5),
        longest: Int = 64 << 10
    ) {
        self.name = name
        let all = seeds + Self.files(of: name)
        self.seeds = all.isEmpty ? [[]] : all
        self.dictionary = dictionary.map { Array($0.utf8) }
        self.patience = patience
        self.longest = longest
    }

    /// In the order of their names, so that the same seed gives the same inputs.
    private static func files(of name: String) -> [[UInt8]] {
        let top = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        return ["Seeds", "FailCases"].flatMap { kind in
            let folder = top.appendingPathComponent(kind).appendingPathComponent(name)
            let files = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
            return files.sorted().compactMap { file in
                (try? Data(contentsOf: folder.appendingPathComponent(file))).map { Array($0) }
            }
        }
    }

    /// Runs as the command line says (seconds, seed, folder for findings, file for the input at work) and answers the
    /// exit status: 1 after a finding. `check` answers what is wrong, or nil.
    package func run(_ arguments: [String], check: ([UInt8]) -> String?) -> Int32 {
        func argument(_ index: Int) -> String? { index < arguments.count ? arguments[index] : nil }
        let seconds = argument(1).flatMap(Double.init) ?? 60
        let seed = argument(2).flatMap(UInt64.init) ?? 1
        var generator = SeededGenerator(seed: seed)
        let clock = ContinuousClock()
        let end = clock.now + .seconds(seconds)
        var count = 0
        while clock.now < end {
            let input = count < seeds.count ? seeds[count] : mutate(&generator)
            // Where the process dies, the input is still there.
            if let file = argument(4) { _ = FileManager.default.createFile(atPath: file, contents: Data(input)) }
            let start = clock.now
            var finding = check(input)
            if finding == nil, clock.now - start > patience { finding = "took \(clock.now - start)" }
            if let finding {
                report(finding, input, folder: argument(3))
                return 1
            }
            count += 1
        }
        print("\(name): \(count) inputs in \(Int(seconds)) s from seed \(seed), nothing found")
        return 0
    }

    private func report(_ finding: String, _ input: [UInt8], folder: String?) {
        // FNV-1a: a name for the file, no more.
        let hash = input.reduce(UInt64(0xcbf2_9ce4_8422_2325)) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
        print("\(name): \(finding)")
        guard let folder else { return }
        let file = "\(folder)/\(String(hash, radix: 16))"
        try? FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        _ = FileManager.default.createFile(atPath: file, contents: Data(input))
        print("kept in \(file)")
    }

    private func mutate(_ generator: inout SeededGenerator) -> [UInt8] {
        var bytes = seeds[Int.random(in: 0..<seeds.count, using: &generator)]
        for _ in 0..<(1 << Int.random(in: 0..<5, using: &generator)) {
            let at = Int.random(in: 0...bytes.count, using: &generator)
            let length = Int.random(in: 0...min(64, bytes.count - at), using: &generator)
            switch Int.random(in: 0..<8, using: &generator) {
            case 0 where at < bytes.count: bytes[at] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
            case 1 where at < bytes.count: bytes[at] = UInt8.random(in: 0...255, using: &generator)
            case 2: bytes.removeSubrange(at..<(at + length))
            case 3: bytes.insert(contentsOf: Array(bytes[at..<(at + length)]), at: at)
            case 4:
                // A piece of another seed.
                let other = seeds[Int.random(in: 0..<seeds.count, using: &generator)]
                let from = Int.random(in: 0...other.count, using: &generator)
                let count = Int.random(in: 0...min(200, other.count - from), using: &generator)
                bytes.insert(contentsOf: other[from..<(from + count)], at: at)
            case 5:
                let word = dictionary.randomElement(using: &generator) ?? []
                let times = Int.random(in: 0..<20, using: &generator) == 0 ? 200 : 1
                for _ in 0..<times { bytes.insert(contentsOf: word, at: at) }
            case 6:
                let word = dictionary.randomElement(using: &generator) ?? []
                bytes.replaceSubrange(at..<(at + length), with: word)
            default: bytes.removeLast(Int.random(in: 0...min(8, bytes.count), using: &generator))
            }
        }
        if bytes.count > longest { bytes.removeLast(bytes.count - longest) }
        return bytes
    }
}

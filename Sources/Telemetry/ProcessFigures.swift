// What the kernel says of this process (Linux: proc(5)). Read by the admin server, never by a loop.
internal import Foundation

package struct ProcessFigures: Sendable {
    package var cpuSeconds: Double
    package var residentBytes: UInt64
    package var virtualBytes: UInt64
    package var openDescriptors: Int
    package var mostDescriptors: UInt64
    package var threads: UInt64
    /// Seconds since 1970.
    package var startTime: Double

    /// Clock ticks of a second in proc(5), and the size of a page: the same on every Linux that this is built for.
    private static let ticks = 100.0
    private static let page: UInt64 = 4096

    /// Nil where there is no proc(5).
    package static func read() -> ProcessFigures? {
        guard let stat = text("/proc/self/stat"), let boot = text("/proc/stat"),
            let files = try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")
        else { return nil }
        return parse(stat: stat, boot: boot, limits: text("/proc/self/limits") ?? "", descriptors: files.count)
    }

    static func parse(stat: String, boot: String, limits: String, descriptors: Int) -> ProcessFigures? {
        // The second field is the program's name in parentheses, which may hold anything: what counts follows the last.
        guard let close = stat.lastIndex(of: ")") else { return nil }
        let fields = stat[stat.index(after: close)...].split(separator: " ")
        // Field 3 of proc(5) is the first here.
        func field(_ n: Int) -> UInt64? { n - 3 < fields.count ? UInt64(fields[n - 3]) : nil }
        guard let user = field(14), let system = field(15), let threads = field(20), let start = field(22),
            let virtual = field(23), let resident = field(24)
        else { return nil }
        let bootTime = boot.split(separator: "\n").first { $0.hasPrefix("btime ") }?.split(separator: " ").last
            .flatMap { Double($0) }
        let most = limits.split(separator: "\n").first { $0.hasPrefix("Max open files") }?
            .split(separator: " ").dropFirst(3).first.flatMap { UInt64($0) }
        return ProcessFigures(
            cpuSeconds: Double(user + system) / ticks, residentBytes: resident * page, virtualBytes: virtual,
            openDescriptors: descriptors, mostDescriptors: most ?? 0, threads: threads,
            startTime: (bootTime ?? 0) + Double(start) / ticks)
    }

    private static func text(_ path: String) -> String? {
        try? String(contentsOfFile: path, encoding: .utf8)
    }
}

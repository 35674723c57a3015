import Foundation

/// A folder that lives as long as a test.
struct TestFolder {
    let root: String

    func path(_ name: String) -> String { root + "/" + name }

    func write(_ name: String, _ text: String, executable: Bool = false) throws {
        try text.write(toFile: path(name), atomically: true, encoding: .utf8)
        if executable {
            try FileManager.default.setAttributes([.posixPermissions: NSNumber(value: 0o755)], ofItemAtPath: path(name))
        }
    }

    func remove(_ name: String) throws { try FileManager.default.removeItem(atPath: path(name)) }
}

private func makeFolder() throws -> TestFolder {
    let root = FileManager.default.temporaryDirectory.path + "/moongate-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: root, withIntermediateDirectories: true)
    return TestFolder(root: root)
}

func withFolder(_ body: (TestFolder) throws -> Void) throws {
    let folder = try makeFolder()
    defer { try? FileManager.default.removeItem(atPath: folder.root) }
    try body(folder)
}

func inFolder(_ body: (TestFolder) async throws -> Void) async throws {
    let folder = try makeFolder()
    do { try await body(folder) } catch {
        try? FileManager.default.removeItem(atPath: folder.root)
        throw error
    }
    try FileManager.default.removeItem(atPath: folder.root)
}

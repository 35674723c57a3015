// The folder as it is on disk: which files it has, and which of them have changed since the last look. Nothing outside the
// folder is ever read, whatever symbolic links in it say.

internal import Dispatch
internal import Foundation
internal import KubernetesAPI
internal import Model
internal import Synchronization

/// Why a folder cannot be used at all.
package struct FolderFault: Error, Sendable, Equatable, CustomStringConvertible {
    package var problem: String
    package var description: String { problem }
}

/// How much of a folder is taken in.
package struct FolderLimits: Sendable, Equatable {
    package var files = 50_000
    package var directoryDepth = 16
    /// Folders, each counted once for every link that leads to it.
    package var directories = 4096
    package var manifestBytes = 32 << 20
    /// SCRIPTING.md §5: a script's source has at most 256 KiB.
    package var scriptBytes = 256 << 10

    package init() {}
}

/// Reads a folder once, or again and again at the cost of what has changed.
package struct FolderReader: Sendable {
    private enum FileKind: Sendable {
        case manifest
        case script
    }

    /// What tells one state of a file from the next without reading it.
    private struct Stamp: Sendable, Equatable {
        var device: Int
        var inode: Int
        var size: Int
        var modified: Date
        var realPath: String
    }

    private struct Listing {
        var files: [(path: String, kind: FileKind, stamp: Stamp)] = []
        var directories: [String] = []
        var diagnostics: [Diagnostic] = []
        /// Real paths of the directories on the way down: a link to one of them would be a loop.
        var ancestors: [String] = []
    }

    package let root: String
    private let limits: FolderLimits
    private var stamps: [String: Stamp] = [:]
    private var memory = FolderMemory()
    private var scripts: [String: ScriptFile] = [:]
    private var hasLoaded = false
    private var last = FolderContents()

    /// The directories seen by the last look, for whoever watches them.
    package private(set) var directories: [String] = []

    /// `root` is a folder, or one manifest file alone.
    package init(root: String, limits: FolderLimits = FolderLimits()) {
        self.root = root
        self.limits = limits
    }

    /// Reads what is new or changed. `dirty` names files (relative to the folder) to be read again even if their size and
    /// time have not moved; `held` those that somebody is in the middle of writing, which stay as they last were.
    /// Throws only if the folder cannot be read and never could.
    package mutating func load(
        dirty: Set<String> = [], held: Set<String> = []
    ) throws(FolderFault) -> FolderContents {
        var listing = Listing()
        do throws(FolderFault) {
            listing = try list()
        } catch {
            guard hasLoaded else { throw error }
            var contents = last
            contents.diagnostics.append(
                ManifestCode.folderGone.diagnostic(
                    error.problem, at: Place(file: root),
                    mend: "bring the folder back; until then what it last held is served"))
            return contents
        }
        directories = listing.directories
        var present: Set<String> = []
        var manifests: [(path: String, stamp: Stamp)] = []
        for file in listing.files {
            present.insert(file.path)
            if held.contains(file.path) {
                listing.diagnostics.append(
                    ManifestCode.beingWritten.diagnostic(
                        "the file has been open for writing for a while", at: Place(file: file.path),
                        mend: "close it; until then what it last held is served"))
                continue
            }
            if stamps[file.path] == file.stamp, !dirty.contains(file.path) { continue }
            stamps[file.path] = file.stamp
            switch file.kind {
            case .manifest: manifests.append((file.path, file.stamp))
            case .script: scripts[file.path] = readScript(file.stamp)
            }
        }
        for (manifest, parsed) in zip(manifests, parse(manifests)) { memory.update(manifest.path, parsed) }
        for path in stamps.keys where !present.contains(path) {
            stamps[path] = nil
            scripts[path] = nil
        }
        for path in memory.paths where !present.contains(path) { memory.remove(path) }
        var contents = memory.contents()
        contents.objects.scriptFiles = scripts
        contents.diagnostics = listing.diagnostics + contents.diagnostics
        hasLoaded = true
        last = contents
        return contents
    }

    // MARK: Files

    /// Each file by itself, on as many cores as there are: thousands of manifests are most of what a start takes.
    private func parse(_ manifests: [(path: String, stamp: Stamp)]) -> [ParsedFile] {
        guard manifests.count > 1 else { return manifests.map { parse($0.path, $0.stamp) } }
        let parsed = Mutex([ParsedFile](repeating: ParsedFile(), count: manifests.count))
        DispatchQueue.concurrentPerform(iterations: manifests.count) { index in
            let file = parse(manifests[index].path, manifests[index].stamp)
            parsed.withLock { $0[index] = file }
        }
        return parsed.withLock { $0 }
    }

    private func parse(_ path: String, _ stamp: Stamp) -> ParsedFile {
        switch text(stamp, limit: limits.manifestBytes) {
        case .success(""):
            // A redirection (`> web.yaml`) empties the file before the command says a word, or fails.
            var parsed = ParsedFile()
            parsed.isBroken = true
            parsed.diagnostics = [
                ManifestCode.emptyFile.diagnostic(
                    "the file is empty", at: Place(file: path), mend: "fill it, or delete it to take away what it held")
            ]
            return parsed
        case .success(let text): return ManifestParser.parse(text, file: path)
        case .failure(let fault):
            var parsed = ParsedFile()
            parsed.isBroken = true
            parsed.diagnostics = [
                ManifestCode.unreadableFile.diagnostic(
                    fault.problem, at: Place(file: path), mend: "make the file readable; until then it is ignored")
            ]
            return parsed
        }
    }

    private func readScript(_ stamp: Stamp) -> ScriptFile {
        switch text(stamp, limit: limits.scriptBytes) {
        case .success(let text): .source(text)
        case .failure(let fault): .refused(reason: fault.problem)
        }
    }

    private func text(_ stamp: Stamp, limit: Int) -> Result<String, FolderFault> {
        guard stamp.size <= limit else {
            return .failure(FolderFault(problem: "the file has \(stamp.size) bytes; at most \(limit) are read"))
        }
        guard let data = FileManager.default.contents(atPath: stamp.realPath) else {
            return .failure(FolderFault(problem: "the file cannot be read (permissions?)"))
        }
        guard data.count <= limit else {
            return .failure(FolderFault(problem: "the file has \(data.count) bytes; at most \(limit) are read"))
        }
        guard let text = String(validating: data, as: UTF8.self) else {
            return .failure(FolderFault(problem: "the file is not UTF-8"))
        }
        return .success(text)
    }

    // MARK: Directories

    private func list() throws(FolderFault) -> Listing {
        let real = Self.realPath(root)
        guard let attributes = Self.attributes(real) else {
            throw FolderFault(problem: "there is no folder \"\(root)\", or it cannot be read")
        }
        var listing = Listing()
        if attributes.type == .typeRegular {
            let name = Self.lastComponent(root)
            let parent = String(real.dropLast(Self.lastComponent(real).count))
            let stamp = Self.stamp(attributes, real)
            listing.files.append((name, Self.kind(name) ?? .manifest, stamp))
            listing.directories.append(parent.isEmpty ? "." : parent)
            return listing
        }
        guard attributes.type == .typeDirectory else {
            throw FolderFault(problem: "\"\(root)\" is neither a folder nor a file")
        }
        guard walk(real, relative: "", root: real, depth: 0, into: &listing) else {
            throw FolderFault(problem: "the folder \"\(root)\" cannot be read (permissions?)")
        }
        return listing
    }

    /// False if the directory itself cannot be listed.
    private func walk(
        _ directory: String, relative: String, root real: String, depth: Int, into listing: inout Listing
    ) -> Bool {
        guard let names = try? FileManager.default.contentsOfDirectory(atPath: directory) else { return false }
        listing.directories.append(directory)
        listing.ancestors.append(directory)
        defer { listing.ancestors.removeLast() }
        for name in names.sorted() where !name.hasPrefix(".") {
            // Hidden entries are not manifests: editors' swap files, `.git`, and the `..2026_…` folders in which a
            // mounted ConfigMap keeps its versions; the links to them beside those are followed.
            let path = relative.isEmpty ? name : "\(relative)/\(name)"
            guard let entry = Self.attributes("\(directory)/\(name)") else { continue }
            var attributes = entry
            var target = "\(directory)/\(name)"
            if entry.type == .typeSymbolicLink {
                target = Self.realPath(target)
                guard target == real || target.hasPrefix(real == "/" ? "/" : real + "/") else {
                    if Self.kind(name) != nil || Self.attributes(target)?.type == .typeDirectory {
                        listing.diagnostics.append(
                            ManifestCode.linkOutside.diagnostic(
                                "the link leads out of the folder", at: Place(file: path),
                                mend: "put the file itself into the folder; the link is not followed"))
                    }
                    continue
                }
                guard let resolved = Self.attributes(target) else { continue }
                attributes = resolved
            }
            switch attributes.type {
            case .typeDirectory:
                guard !listing.ancestors.contains(target) else { continue }
                // Links within links to folders would be walked without end.
                guard listing.directories.count < limits.directories else {
                    if !listing.diagnostics.contains(where: Self.isTooManyDirectories) {
                        listing.diagnostics.append(
                            ManifestCode.tooMuch.diagnostic(
                                Self.tooManyDirectories + " \(limits.directories)", at: Place(file: path),
                                mend: "name a smaller folder, or remove links to folders; this one and those after it "
                                    + "are ignored"))
                    }
                    continue
                }
                guard depth < limits.directoryDepth else {
                    listing.diagnostics.append(
                        ManifestCode.tooMuch.diagnostic(
                            "folders are nested deeper than \(limits.directoryDepth) levels", at: Place(file: path),
                            mend: "move the manifests up; this folder is ignored"))
                    continue
                }
                if !walk(target, relative: path, root: real, depth: depth + 1, into: &listing) {
                    listing.diagnostics.append(
                        ManifestCode.unreadableFile.diagnostic(
                            "the folder cannot be read (permissions?)", at: Place(file: path),
                            mend: "make the folder readable; until then it is ignored"))
                }
            case .typeRegular:
                // A pipe or a device would hold up the reader; only regular files are opened.
                guard let kind = Self.kind(name) else { continue }
                guard listing.files.count < limits.files else {
                    if listing.files.count == limits.files, !listing.diagnostics.contains(where: Self.isTooManyFiles) {
                        listing.diagnostics.append(
                            ManifestCode.tooMuch.diagnostic(
                                Self.tooManyFiles + " \(limits.files)", at: Place(file: path),
                                mend: "split the folder; this file and those after it are ignored"))
                    }
                    continue
                }
                listing.files.append((path, kind, Self.stamp(attributes, target)))
            default: continue
            }
        }
        return true
    }

    private static let tooManyFiles = "the folder holds more files than"

    private static let tooManyDirectories = "there are more folders, counted once for each link to them, than"

    private static func isTooManyDirectories(_ diagnostic: Diagnostic) -> Bool {
        diagnostic.code == ManifestCode.tooMuch.rawValue && diagnostic.problem.hasPrefix(tooManyDirectories)
    }

    private static func isTooManyFiles(_ diagnostic: Diagnostic) -> Bool {
        diagnostic.code == ManifestCode.tooMuch.rawValue && diagnostic.problem.hasPrefix(tooManyFiles)
    }

    private static func kind(_ name: String) -> FileKind? {
        let lower = name.lowercased()
        if lower.hasSuffix(".yaml") || lower.hasSuffix(".yml") || lower.hasSuffix(".json") { return .manifest }
        return lower.hasSuffix(".lua") ? .script : nil
    }

    private struct Attributes {
        var type: FileAttributeType
        var device: Int
        var inode: Int
        var size: Int
        var modified: Date
    }

    private static func attributes(_ path: String) -> Attributes? {
        guard let all = try? FileManager.default.attributesOfItem(atPath: path),
            let type = all[.type] as? FileAttributeType
        else { return nil }
        func number(_ key: FileAttributeKey) -> Int { (all[key] as? NSNumber)?.intValue ?? 0 }
        return Attributes(
            type: type, device: number(.systemNumber), inode: number(.systemFileNumber), size: number(.size),
            modified: all[.modificationDate] as? Date ?? .distantPast)
    }

    private static func stamp(_ attributes: Attributes, _ realPath: String) -> Stamp {
        Stamp(
            device: attributes.device, inode: attributes.inode, size: attributes.size,
            modified: attributes.modified, realPath: realPath)
    }

    private static func realPath(_ path: String) -> String {
        URL(fileURLWithPath: path).resolvingSymlinksInPath().path
    }

    private static func lastComponent(_ path: String) -> String {
        String(path.split(separator: "/").last ?? "")
    }
}

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
    /// What to do once the folder has been served.
    package var mend = "make it readable again"
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

/// Where the folder lies on disk: what to watch, and what an event there means. Links make it more than the folder and its
/// name: a directory behind one has a place of its own, and one name or several in the folder.
package struct FolderMap: Sendable, Equatable {
    /// The names that the folder has for each directory that was listed; "" is the folder itself.
    package var directories: [String: [String]] = [:]
    /// The names that the folder has for each file that a link leads to.
    package var files: [String: [String]] = [:]
    /// The links on the way to all of this, by the directory that each lies in: who swaps one swaps what lies behind it.
    package var links: [String: Set<String>] = [:]

    /// The files of the folder that an entry of a directory is; none if it does not matter. "" is none in particular.
    package func names(of entry: String, in directory: String) -> [String] {
        if entry.isEmpty { return directories[directory] ?? [""] }
        if links[directory]?.contains(entry) == true { return [""] }
        let linked = files[FolderReader.join(directory, entry)] ?? []
        // Editors' swap files do not matter; `..data`, by which a mounted ConfigMap changes, does.
        if entry.hasPrefix("."), !entry.hasPrefix("..") { return linked }
        return linked + (directories[directory] ?? []).map { $0.isEmpty ? entry : "\($0)/\(entry)" }
    }
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
        var map = FolderMap()
        /// How many directories were listed, each counted once for every link to it.
        var directories = 0
        var diagnostics: [Diagnostic] = []
        /// Real paths of the directories on the way down: a link to one of them would be a loop.
        var ancestors: [String] = []

        typealias Link = (directory: String, name: String)

        mutating func add(_ link: Link) { map.links[link.directory, default: []].insert(link.name) }

        /// What links lead to is watched as far as folders are: in as many places at most.
        func hasRoom(_ limits: FolderLimits) -> Bool {
            map.files.count < limits.directories && map.links.count < limits.directories
        }
    }

    package let root: String
    private let limits: FolderLimits
    private var stamps: [String: Stamp] = [:]
    private var memory = FolderMemory()
    private var scripts: [String: ScriptFile] = [:]
    private var hasLoaded = false
    private var last = FolderContents()

    /// What the last look that found the folder saw, for whoever watches it.
    package private(set) var map = FolderMap()
    /// The folder was there once, and is not there now.
    package private(set) var isGone = false

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
            isGone = true
            var contents = last
            contents.diagnostics.append(
                ManifestCode.folderGone.diagnostic(
                    error.problem, at: Place(file: root),
                    mend: error.mend + "; until then what it last held is served"))
            return contents
        }
        isGone = false
        map = listing.map
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
        var listing = Listing()
        let absolute = root.hasPrefix("/") ? root : Self.join(FileManager.default.currentDirectoryPath, root)
        let (real, links) = Self.resolve(absolute)
        guard let attributes = Self.attributes(real) else {
            guard hasLoaded else {
                throw FolderFault(problem: "there is no folder \"\(root)\", or it cannot be read")
            }
            throw FolderFault(
                problem:
                    "the folder \"\(root)\" is gone: it, or a folder that it lies in, was moved, renamed, deleted or "
                    + "closed to moongate",
                mend: "move it back or make it anew, or start moongate with the folder's new place")
        }
        for link in links { listing.add(link) }
        if attributes.type == .typeRegular {
            let name = Self.lastComponent(root)
            let stamp = Self.stamp(attributes, real)
            listing.files.append((name, Self.kind(name) ?? .manifest, stamp))
            listing.map.files[real] = [name]
            return listing
        }
        guard attributes.type == .typeDirectory else {
            throw FolderFault(problem: "\"\(root)\" is neither a folder nor a file", mend: "put the folder back")
        }
        listing.add(Self.split(real))
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
        listing.map.directories[directory, default: []].append(relative)
        listing.directories += 1
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
                let links: [Listing.Link]
                (target, links) = Self.resolve(target)
                guard !target.isEmpty else { continue }
                guard target == real || target.hasPrefix(real == "/" ? "/" : real + "/") else {
                    let isFolder = Self.attributes(target)?.type == .typeDirectory
                    if isFolder || Self.kind(name) != nil {
                        listing.diagnostics.append(
                            ManifestCode.linkOutside.diagnostic(
                                "the link leads out of the folder", at: Place(file: path),
                                mend:
                                    "put the \(isFolder ? "folder" : "file") itself there, or a mount of it; the link "
                                    + "is not followed"))
                    }
                    continue
                }
                // Its own directory is watched, but those that it leads through may be hidden.
                for link in links.dropFirst() where listing.hasRoom(limits) { listing.add(link) }
                if Self.kind(name) != nil, listing.hasRoom(limits) {
                    listing.map.files[target, default: []].append(path)
                }
                guard let resolved = Self.attributes(target) else { continue }
                attributes = resolved
            }
            switch attributes.type {
            case .typeDirectory:
                guard !listing.ancestors.contains(target) else { continue }
                // Links within links to folders would be walked without end.
                guard listing.directories < limits.directories else {
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

    /// Where an absolute path leads, and the links that it leads through. What goes round in circles leads nowhere.
    private static func resolve(_ path: String) -> (path: String, links: [Listing.Link]) {
        var done = ""
        var left = path.split(separator: "/").map(String.init)[...]
        var links: [Listing.Link] = []
        while let next = left.popFirst() {
            switch next {
            case ".": continue
            case "..": done = split(done).directory
            default:
                let here = join(done, next)
                guard let target = try? FileManager.default.destinationOfSymbolicLink(atPath: here) else {
                    done = here
                    continue
                }
                links.append((done.isEmpty ? "/" : done, next))
                // As many as the kernel follows (path_resolution(7)).
                guard links.count <= 40 else { return ("", links) }
                if target.hasPrefix("/") { done = "" }
                left = (target.split(separator: "/").map(String.init) + left)[...]
            }
            if done == "/" { done = "" }
        }
        return (done.isEmpty ? "/" : done, links)
    }

    static func join(_ directory: String, _ name: String) -> String {
        directory.hasSuffix("/") ? directory + name : "\(directory)/\(name)"
    }

    /// The directory that an absolute path lies in, and its name there.
    static func split(_ path: String) -> (directory: String, name: String) {
        guard let slash = path.utf8.lastIndex(of: 47) else { return ("/", path) }
        let directory = String(path[..<slash])
        return (directory.isEmpty ? "/" : directory, String(path[path.utf8.index(after: slash)...]))
    }

    private static func lastComponent(_ path: String) -> String {
        String(path.split(separator: "/").last ?? "")
    }
}

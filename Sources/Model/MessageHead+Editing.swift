// How scripts and middlewares change a head: the arena grows, the record changes, and a saved copy of `fields` still
// reads what it read before. Nothing here checks the grammar: ask `FieldGrammar` first, the serialiser asks once more.

extension MessageHead {
    /// Sets a field to one value: the first live line of that name takes it and keeps its place, the others go; without
    /// one a line is appended. The line is ours from then on.
    package mutating func set(_ name: Span<UInt8>, to value: Span<UInt8>) {
        set(name, to: store(Self.trimmed(value)))
    }

    /// The same with a value that lies in the arena already.
    package mutating func set(_ name: Span<UInt8>, to value: ByteRange) {
        guard let first = firstIndex(named: name) else {
            append(name, value)
            return
        }
        fields[first].valueOffset = value.offset
        fields[first].valueCount = value.count
        fields[first].flags = .ours
        removeAll(named: name, from: first + 1)
    }

    /// Appends a line, whatever lines of that name there are.
    package mutating func append(_ name: Span<UInt8>, _ value: Span<UInt8>) {
        append(name, store(Self.trimmed(value)))
    }

    /// Appends the field whose name and value already lie in `bytes`, at these places.
    package mutating func record(name: ByteRange, value: ByteRange, flags: FieldRecord.Flags = .none) {
        let known = FieldName(bytes.span.extracting(name.range))
        fields.append(FieldRecord(name: known, nameRange: name, valueRange: value, flags: flags))
    }

    package mutating func append(_ name: Span<UInt8>, _ value: ByteRange) {
        let nameRange = store(name)
        fields.append(FieldRecord(name: FieldName(name), nameRange: nameRange, valueRange: value, flags: .ours))
    }

    /// Removes every line of that name and says how many there were.
    @discardableResult
    package mutating func removeAll(named name: Span<UInt8>, from start: Int = 0) -> Int {
        var count = 0
        var next = firstIndex(named: name, from: start)
        while let index = next {
            remove(at: index)
            count += 1
            next = firstIndex(named: name, from: index + 1)
        }
        return count
    }

    /// The value of the first live line of that name.
    @inlinable
    public func value(named name: Span<UInt8>) -> ByteRange? {
        guard let index = firstIndex(named: name) else { return nil }
        return ByteRange(offset: Int(fields[index].valueOffset), count: Int(fields[index].valueCount))
    }

    /// The value of the first live line of that known name.
    @inlinable
    public func value(of name: FieldName) -> ByteRange? {
        guard let index = firstIndex(of: name) else { return nil }
        return ByteRange(offset: Int(fields[index].valueOffset), count: Int(fields[index].valueCount))
    }

    /// Gives the request another canonical path. The query stays. Refuses what `CanonicalPath` refuses; encoded slashes
    /// may stay where the client's own path has them.
    package mutating func setPath(_ path: Span<UInt8>) throws(CanonicalPath.Refusal) {
        guard path.count <= CanonicalPath.maxCount else { throw .tooLong }
        let stored = store(path)
        do throws(CanonicalPath.Refusal) {
            let range = try CanonicalPath.normalise(
                stored.range, in: &bytes, allowing: hasEncodedSlash ? .encodedSlashes : [])
            pathRange = ByteRange(offset: range.lowerBound, count: range.count)
        } catch {
            bytes.removeLast(path.count)
            throw error
        }
    }

    /// Gives the request another host, with or without a port: the router's, and the `Host` that the upstream gets.
    /// Returns why it is none, nil when it was set.
    package mutating func setHost(_ host: Span<UInt8>) -> String? {
        guard let authority = Authority(host), host[host.count - 1] != 0x3a else {
            return
                "a host is a name or an address, then a port if need be: \"shop.test\", \"shop.test:8080\", \"[::1]\""
        }
        if replacedAuthorityRange.isEmpty { replacedAuthorityRange = authorityRange }
        authorityRange = store(host)
        setHostRange(from: authority)
        let nameRange = store("host".utf8)
        if let index = firstIndex(of: .host) {
            fields[index].valueOffset = authorityRange.offset
            fields[index].valueCount = authorityRange.count
            fields[index].flags = .ours
        } else {
            fields.append(FieldRecord(name: .host, nameRange: nameRange, valueRange: authorityRange, flags: .ours))
        }
        return nil
    }

    /// Sets `hostRange` from `authorityRange`: in place where it is in lower case already.
    @inlinable
    public mutating func setHostRange(from authority: Authority) {
        let offset = Int(authorityRange.offset)
        guard !authority.isLowercase else {
            hostRange = ByteRange(offset: offset, count: authority.hostCount)
            return
        }
        hostRange = ByteRange(offset: bytes.count, count: authority.hostCount)
        for i in 0..<authority.hostCount { bytes.append(Self.lower(bytes[offset + i])) }
    }

    /// Without the spaces and tabs around it (RFC 9110 §5.5).
    @inlinable
    @_lifetime(copy value)
    public static func trimmed(_ value: Span<UInt8>) -> Span<UInt8> {
        var start = 0
        var end = value.count
        while start < end, value[start] == 0x20 || value[start] == 0x09 { start += 1 }
        while end > start, value[end - 1] == 0x20 || value[end - 1] == 0x09 { end -= 1 }
        return value.extracting(start..<end)
    }
}

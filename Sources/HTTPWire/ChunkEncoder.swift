// The chunked coding put on (RFC 9112 §7.1), around data that is written by whoever has it.

package import Model

package enum ChunkEncoder {
    /// The longest size line, sixteen digits and CRLF.
    package static let maxSizeLine = 18
    /// What stands behind the data of a chunk.
    package static let endOfData: StaticString = "\r\n"
    /// The last chunk of a body without trailers.
    package static let last: StaticString = "0\r\n\r\n"

    /// Writes the line before `count` bytes of data; `count` is above 0, for 0 ends the body. Needs `maxSizeLine` of
    /// room.
    @_lifetime(output: copy output)
    package static func writeSize(_ count: Int, to output: inout OutputRawSpan) {
        let n = UInt64(max(count, 1))
        var shift = (63 - n.leadingZeroBitCount) & ~3
        while shift >= 0 {
            output.append(lowerHexDigit(UInt8(truncatingIfNeeded: n >> UInt64(shift)) & 15))
            shift -= 4
        }
        output.append(0x0d)
        output.append(0x0a)
    }

    /// Writes the last chunk with the trailers that are in `trailers` (mostly none).
    @_lifetime(output: copy output)
    package static func writeLast(
        _ trailers: borrowing MessageHead, to output: inout OutputRawSpan
    ) -> HeadWriter.Outcome {
        let need = HeadWriter.room(for: trailers, extra: 8)
        guard output.freeCapacity >= need else { return .needsRoom(need) }
        let start = output.byteCount
        output.append("0\r\n")
        guard HeadWriter.writeFields(trailers, to: &output).isValid else {
            output.removeLast(output.byteCount - start)
            return .invalid
        }
        output.append("\r\n")
        return .written
    }
}

@inline(__always)
func lowerHexDigit(_ value: UInt8) -> UInt8 { value < 10 ? 48 + value : 87 + value }

// Dates of HTTP (RFC 9110 §5.6.7), formatted and read by hand: no library, no locale, no allocation.

package enum HTTPDate {
    /// `Sun, 06 Nov 1994 08:49:37 GMT` is always that long.
    package static let count = 29

    private static let days: StaticString = "SunMonTueWedThuFriSat"
    private static let months: StaticString = "JanFebMarAprMayJunJulAugSepOctNovDec"

    /// Appends the IMF-fixdate of `seconds` since 1970. Years are held within 0000…9999.
    package static func append(_ seconds: Int64, to output: inout [UInt8]) {
        // 0000-01-01 and 9999-12-31: what four digits can say.
        let seconds = min(max(seconds, -62_167_219_200), 253_402_300_799)
        let day = floorDivide(seconds, 86400)
        let second = Int(seconds - day * 86400)
        let date = civil(fromDays: day)
        appendName(days, Int(((day + 4) % 7 + 7) % 7), to: &output)
        output.append(", ")
        appendDigits(date.day, 2, to: &output)
        output.append(0x20)
        appendName(months, date.month - 1, to: &output)
        output.append(0x20)
        appendDigits(date.year, 4, to: &output)
        output.append(0x20)
        appendDigits(second / 3600, 2, to: &output)
        output.append(0x3a)
        appendDigits(second / 60 % 60, 2, to: &output)
        output.append(0x3a)
        appendDigits(second % 60, 2, to: &output)
        output.append(" GMT")
    }

    /// Reads the three forms that a recipient must accept: IMF-fixdate, RFC 850 and asctime. Seconds since 1970, or nil.
    /// A two-digit year more than 50 years after `now` lies in the past (RFC 9110 §5.6.7).
    package static func parse(_ text: Span<UInt8>, now: Int64) -> Int64? {
        var reader = Reader(text: text)
        guard let comma = reader.skipDayName() else { return nil }
        var year: Int
        let month: Int
        let day: Int
        let time: Int
        switch comma {
        case .fixdate:
            guard reader.skip(" "), let d = reader.digits(2), reader.skip(" "), let m = reader.month(),
                reader.skip(" "), let y = reader.digits(4), reader.skip(" "), let t = reader.time(), reader.skip(" GMT")
            else { return nil }
            (year, month, day, time) = (y, m, d, t)
        case .rfc850:
            guard reader.skip(" "), let d = reader.digits(2), reader.skip("-"), let m = reader.month(),
                reader.skip("-"), let y = reader.digits(2), reader.skip(" "), let t = reader.time(), reader.skip(" GMT")
            else { return nil }
            let thisYear = civil(fromDays: floorDivide(now, 86400)).year
            year = thisYear - thisYear % 100 + y
            if year > thisYear + 50 { year -= 100 }
            (month, day, time) = (m, d, t)
        case .asctime:
            guard reader.skip(" "), let m = reader.month(), reader.skip(" "),
                let d = reader.skip(" ") ? reader.digits(1) : reader.digits(2), reader.skip(" "),
                let t = reader.time(), reader.skip(" "), let y = reader.digits(4)
            else { return nil }
            (year, month, day, time) = (y, m, d, t)
        }
        guard reader.isAtEnd, day >= 1 else { return nil }
        let days = days(fromYear: year, month: month, day: day)
        // A day that its month does not have comes back as another one.
        let back = civil(fromDays: days)
        guard back.day == day, back.month == month else { return nil }
        return days * 86400 + Int64(time)
    }

    private enum Form {
        case fixdate
        case rfc850
        case asctime
    }

    private struct Reader: ~Escapable {
        let text: Span<UInt8>
        var offset = 0

        @_lifetime(copy text)
        init(text: Span<UInt8>) {
            self.text = text
        }

        var isAtEnd: Bool { offset == text.count }

        mutating func skip(_ expected: StaticString) -> Bool {
            let n = expected.utf8CodeUnitCount
            guard offset + n <= text.count, text.extracting(offset..<offset + n).equals(expected) else { return false }
            offset += n
            return true
        }

        mutating func digits(_ n: Int) -> Int? {
            guard offset + n <= text.count else { return nil }
            var value = 0
            for i in offset..<offset + n {
                let digit = text[i] &- 48
                guard digit < 10 else { return nil }
                value = value * 10 + Int(digit)
            }
            offset += n
            return value
        }

        mutating func month() -> Int? { name(of: months, 12).map { $0 + 1 } }

        /// `23:59:60` too: a leap second is the second after.
        mutating func time() -> Int? {
            guard let h = digits(2), skip(":"), let m = digits(2), skip(":"), let s = digits(2), h < 24, m < 60, s <= 60
            else { return nil }
            return h * 3600 + m * 60 + s
        }

        mutating func skipDayName() -> Form? {
            guard let day = name(of: days, 7) else { return nil }
            if skip(",") { return .fixdate }
            if offset < text.count, text[offset] == 0x20 { return .asctime }
            let rest: StaticString =
                switch day {
                case 0, 1, 5: "day,"
                case 2: "sday,"
                case 3: "nesday,"
                case 4: "rsday,"
                default: "urday,"
                }
            return skip(rest) ? .rfc850 : nil
        }

        private mutating func name(of list: StaticString, _ n: Int) -> Int? {
            guard offset + 3 <= text.count else { return nil }
            for i in 0..<n {
                if (0..<3).allSatisfy({ text[offset + $0] == byte(list, 3 * i + $0) }) {
                    offset += 3
                    return i
                }
            }
            return nil
        }
    }

    private static func byte(_ text: StaticString, _ i: Int) -> UInt8 {
        // Proof: callers stay below the count of the two lists above, whose bytes live as long as the program.
        unsafe text.utf8Start[i]
    }

    private static func appendName(_ list: StaticString, _ index: Int, to output: inout [UInt8]) {
        for i in 0..<3 { output.append(byte(list, 3 * index + i)) }
    }

    private static func appendDigits(_ value: Int, _ n: Int, to output: inout [UInt8]) {
        var scale = 1
        for _ in 1..<n { scale *= 10 }
        for _ in 0..<n {
            output.append(48 + UInt8(truncatingIfNeeded: value / scale % 10))
            scale /= 10
        }
    }

    private static func floorDivide(_ a: Int64, _ b: Int64) -> Int64 { a >= 0 ? a / b : -((-a + b - 1) / b) }

    /// The Gregorian date of a day counted from 1970-01-01. Years are counted from March, so that a leap day is last.
    package static func civil(fromDays days: Int64) -> (year: Int, month: Int, day: Int) {
        let shifted = days + 719_468
        let era = floorDivide(shifted, 146_097)
        let dayOfEra = Int(shifted - era * 146_097)
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let fromMarch = (5 * dayOfYear + 2) / 153
        let month = fromMarch < 10 ? fromMarch + 3 : fromMarch - 9
        let year = yearOfEra + Int(era) * 400 + (month <= 2 ? 1 : 0)
        return (year, month, dayOfYear - (153 * fromMarch + 2) / 5 + 1)
    }

    private static func days(fromYear year: Int, month: Int, day: Int) -> Int64 {
        let y = Int64(month <= 2 ? year - 1 : year)
        let era = floorDivide(y, 400)
        let yearOfEra = y - era * 400
        let dayOfYear = Int64((153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1)
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }
}

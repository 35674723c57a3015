// `moongate.time`: a clock of one millisecond, so that scripts cannot use it to time what they should not see.

import Glibc
import Model

/// What scripts know of time; tests set it.
package struct ScriptClock: Sendable {
    /// Milliseconds since 1970.
    package var wall: @Sendable () -> Int64
    /// Nanoseconds of the monotonic clock.
    package var monotonic: @Sendable () -> UInt64

    package init(wall: @escaping @Sendable () -> Int64, monotonic: @escaping @Sendable () -> UInt64) {
        self.wall = wall
        self.monotonic = monotonic
    }

    package static let system = ScriptClock(
        wall: {
            var now = timespec()
            unsafe clock_gettime(CLOCK_REALTIME, &now)
            return Int64(now.tv_sec) * 1000 + Int64(now.tv_nsec) / 1_000_000
        },
        monotonic: {
            var now = timespec()
            unsafe clock_gettime(CLOCK_MONOTONIC, &now)
            return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
        })
}

/// Dates as text, in UTC always.
package enum DateText {
    /// The years that four digits can say.
    package static let milliseconds: ClosedRange<Int64> = -62_167_219_200_000...253_402_300_799_999

    struct Civil {
        var year: Int
        var month: Int
        var day: Int
    }

    /// Howard Hinnant's algorithm "days_from_civil" in reverse: eras of 400 years.
    static func civil(days: Int64) -> Civil {
        let z = days + 719_468
        let era = (z >= 0 ? z : z - 146_096) / 146_097
        let dayOfEra = z - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let month = (5 * dayOfYear + 2) / 153
        let realMonth = month < 10 ? month + 3 : month - 9
        return Civil(
            year: Int(yearOfEra + era * 400) + (realMonth <= 2 ? 1 : 0), month: Int(realMonth),
            day: Int(dayOfYear - (153 * month + 2) / 5) + 1)
    }

    static func days(_ date: Civil) -> Int64 {
        let year = Int64(date.month <= 2 ? date.year - 1 : date.year)
        let era = (year >= 0 ? year : year - 399) / 400
        let yearOfEra = year - era * 400
        let month = Int64(date.month > 2 ? date.month - 3 : date.month + 9)
        let dayOfYear = (153 * month + 2) / 5 + Int64(date.day) - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }

    static func length(year: Int, month: Int) -> Int {
        switch month {
        case 2: year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28
        case 4, 6, 9, 11: 30
        default: 31
        }
    }

    /// RFC 3339, with milliseconds where there are any; nil outside of the years 0000…9999.
    package static func rfc3339(_ time: Int64) -> String? {
        guard milliseconds.contains(time) else { return nil }
        let (day, rest) = floorDivide(time, 86_400_000)
        let date = civil(days: day)
        let second = rest / 1000
        var text = pad(date.year, 4) + "-" + pad(date.month, 2) + "-" + pad(date.day, 2)
        text += "T" + pad(Int(second / 3600), 2) + ":" + pad(Int(second / 60 % 60), 2) + ":" + pad(Int(second % 60), 2)
        if rest % 1000 != 0 { text += "." + pad(Int(rest % 1000), 3) }
        return text + "Z"
    }

    /// A layout with the strftime fields `%Y %m %d %H %M %S %L` (milliseconds) `%j %F %T %s %%`; nil for any other.
    package static func format(_ time: Int64, layout: String) -> String? {
        guard milliseconds.contains(time), layout.utf8.count <= 256 else { return nil }
        let (day, rest) = floorDivide(time, 86_400_000)
        let date = civil(days: day)
        let second = Int(rest / 1000)
        let clock = (pad(second / 3600, 2), pad(second / 60 % 60, 2), pad(second % 60, 2))
        var text = ""
        var letters = layout.makeIterator()
        while let letter = letters.next() {
            guard letter == "%" else {
                text.append(letter)
                continue
            }
            switch letters.next() {
            case "Y": text += pad(date.year, 4)
            case "m": text += pad(date.month, 2)
            case "d": text += pad(date.day, 2)
            case "H": text += clock.0
            case "M": text += clock.1
            case "S": text += clock.2
            case "L": text += pad(Int(rest % 1000), 3)
            case "j": text += pad(Int(day - days(Civil(year: date.year, month: 1, day: 1))) + 1, 3)
            case "F": text += pad(date.year, 4) + "-" + pad(date.month, 2) + "-" + pad(date.day, 2)
            case "T": text += clock.0 + ":" + clock.1 + ":" + clock.2
            case "s": text += String(floorDivide(time, 1000).quotient)
            case "%": text += "%"
            default: return nil
            }
        }
        return text
    }

    /// RFC 3339 §5.6, or a date alone (midnight UTC). Milliseconds since 1970; further digits are cut off.
    package static func parse(_ text: String) -> Int64? {
        let bytes = Array(text.utf8)
        func digits(_ at: Int, _ count: Int) -> Int? {
            guard at + count <= bytes.count else { return nil }
            var value = 0
            for byte in bytes[at..<at + count] {
                guard (48...57).contains(byte) else { return nil }
                value = value * 10 + Int(byte - 48)
            }
            return value
        }
        guard bytes.count >= 10, bytes.count <= 40, bytes[4] == 45, bytes[7] == 45, let year = digits(0, 4),
            let month = digits(5, 2), (1...12).contains(month), let day = digits(8, 2), day >= 1,
            day <= length(year: year, month: month)
        else { return nil }
        let midnight = days(Civil(year: year, month: month, day: day)) * 86_400_000
        if bytes.count == 10 { return midnight }
        guard bytes.count >= 20, [84, 116, 32].contains(bytes[10]), bytes[13] == 58, bytes[16] == 58,
            let hour = digits(11, 2), hour < 24, let minute = digits(14, 2), minute < 60, let second = digits(17, 2),
            second <= 60
        else { return nil }
        var at = 19
        var milliseconds = 0
        if bytes[at] == 46 {
            var count = 0
            at += 1
            while at < bytes.count, (48...57).contains(bytes[at]) {
                if count < 3 { milliseconds = milliseconds * 10 + Int(bytes[at] - 48) }
                count += 1
                at += 1
            }
            guard count > 0 else { return nil }
            while count < 3 {
                milliseconds *= 10
                count += 1
            }
        }
        guard at < bytes.count else { return nil }
        var offset = 0
        switch bytes[at] {
        case 90, 122:
            guard at + 1 == bytes.count else { return nil }
        case 43, 45:
            guard at + 6 == bytes.count, bytes[at + 3] == 58, let hours = digits(at + 1, 2), hours < 24,
                let minutes = digits(at + 4, 2), minutes < 60
            else { return nil }
            offset = (hours * 60 + minutes) * (bytes[at] == 45 ? -1 : 1)
        default: return nil
        }
        return midnight + Int64(((hour * 60 + minute - offset) * 60 + second) * 1000 + milliseconds)
    }

    private static func floorDivide(_ value: Int64, _ by: Int64) -> (quotient: Int64, remainder: Int64) {
        let (quotient, remainder) = value.quotientAndRemainder(dividingBy: by)
        return remainder < 0 ? (quotient - 1, remainder + by) : (quotient, remainder)
    }

    private static func pad(_ value: Int, _ width: Int) -> String {
        let text = String(value)
        return text.utf8.count < width ? String(repeating: "0", count: width - text.utf8.count) + text : text
    }
}

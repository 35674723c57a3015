// The clocks of a loop, read once per pass and handed down: nothing below reads a clock by itself, so that tests can
// pass any time that they like.
internal import CLinux
internal import Glibc

package enum MonotonicClock {
    /// Nanoseconds on the monotonic clock.
    package static func nanoseconds() -> UInt64 { moongate_clock(CLOCK_MONOTONIC) }
    /// Milliseconds on the monotonic clock.
    package static func milliseconds() -> UInt64 { nanoseconds() / 1_000_000 }
}

package enum WallClock {
    /// Nanoseconds since the epoch.
    package static func nanoseconds() -> UInt64 { moongate_clock(CLOCK_REALTIME) }
    /// Seconds since the epoch.
    package static func seconds() -> Int64 { Int64(nanoseconds() / 1_000_000_000) }
}

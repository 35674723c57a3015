// What the process holds in memory.
internal import CLinux

package enum ProcessMemory {
    /// Gives back what only starting needed: free pages of the heap, and pages of code, which come back from the program's
    /// file where they are used again. Call it once, before the first request: what runs then is mapped anew, sixteen
    /// pages at a fault.
    package static func settle() { moongate_settle() }
}

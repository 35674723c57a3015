// Steps 4 and 7 of a request's walk: the scripts of a route, phase by phase, as SCRIPTING.md §2 and §11 order them.
//
// A set is made off the loops, by `MiddlewareCompiler`, one for each loop and snapshot; Proxy pins it together with the
// snapshot and calls it with the route index that it matched. A request that is in flight finishes on the set that it
// started with.

package import Model

/// The scripts of every route of one snapshot, for one loop.
///
/// `@unchecked Sendable`: it is built on the control thread, handed over once, and from then on used by its loop only.
package final class MiddlewareSet: @unchecked Sendable {
    /// No scripts at all.
    package init() {}

    /// Rewrite, at most one `reroute`, access, route. Call it after the match, with `exchange.route` and
    /// `exchange.upstream` set. `reroute` must match again by the path that now stands in the head and set both.
    @inline(__always)
    package func runRequestPhases(_ exchange: Exchange, reroute: (Exchange) -> Void) -> Verdict {
        .next
    }

    /// Header filters in reverse order, for every response, whatever made it; `exchange.origin` and the response's head
    /// are set. Call it once, before the head is encoded.
    @inline(__always)
    package func runResponsePhases(_ exchange: Exchange) -> Verdict {
        .next
    }

    /// The log phase; it also lets go of what the scripts keep of this request, so it must be called for every exchange
    /// that went through `runRequestPhases` or `runResponsePhases`, also when the client is gone.
    @inline(__always)
    package func runLog(_ exchange: Exchange) {
    }

    /// What `ScriptRun.script` stands for.
    package func scriptName(_ index: Int32) -> String { "" }
    package func scriptVersion(_ index: Int32) -> String { "" }
}

// Step 4 of a configuration change: scripts are compiled, their arguments judged and their VMs built here, on the
// control thread. What fails keeps its last good version and returns a diagnostic.

package import Model

/// Makes the middlewares of each snapshot. Belongs to the control thread.
package final class MiddlewareCompiler {
    package struct Preparation: Sendable {
        /// One for each loop.
        package var sets: [MiddlewareSet]
        package var diagnostics: [Diagnostic]
    }

    private let loops: Int

    package init(loops: Int) {
        self.loops = loops
    }

    package func prepare(_ snapshot: Snapshot) -> Preparation {
        Preparation(sets: (0..<loops).map { _ in MiddlewareSet() }, diagnostics: [])
    }
}

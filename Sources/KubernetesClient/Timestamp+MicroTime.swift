// meta/v1 MicroTime: the API server takes it with exactly six digits of fraction, and refuses a time without one.

package import KubernetesAPI

extension Timestamp {
    /// The same moment in a form that is written with a fraction; the full second moves by a microsecond.
    package var asMicroTime: Timestamp {
        Timestamp(seconds: seconds, nanoseconds: max(1_000, nanoseconds / 1_000 * 1_000))
    }
}

// The table of callbacks that C calls. Each fetches its run or VM from the context pointer, lends the bytes as spans, and
// returns; no Lua error can cross it, because none of Lua is called from here.

import CLua
import Model

@safe
enum BorderCallbacks {
    /// Proof for every pointer below: `run` is a `BorderRun` that `ScriptVM` holds while C runs the phase, `host` the
    /// `HostLink` of the VM, which outlives the C side; bytes and values live until the callback returns (`mg_host`).
    @inline(__always)
    private static func with<R>(_ run: UnsafeMutableRawPointer?, else missing: R, _ body: (BorderRun) -> R) -> R {
        guard let run = unsafe run else { return missing }
        return unsafe Unmanaged<BorderRun>.fromOpaque(run)._withUnsafeGuaranteedRef(body)
    }

    /// The same, with a writer of what the callback gives.
    @inline(__always)
    private static func with<R>(
        _ run: UnsafeMutableRawPointer?, _ out: OpaquePointer?, else missing: R, _ body: (BorderRun, ValueWriter) -> R
    ) -> R {
        guard let out = unsafe out else { return missing }
        return unsafe with(run, else: missing) { unsafe body($0, ValueWriter(out)) }
    }

    /// The span claims to live for ever; every use of it ends with the callback, and callees cannot keep a span.
    @inline(__always)
    @_lifetime(immortal)
    private static func span(_ bytes: UnsafePointer<CChar>?, _ count: Int) -> Span<UInt8> {
        guard let bytes = unsafe bytes else { return Span() }
        let start = unsafe UnsafeRawPointer(bytes).assumingMemoryBound(to: UInt8.self)
        return unsafe _overrideLifetime(Span(_unsafeStart: start, count: count), copying: ())
    }

    private static func answer(
        _ problem: String?, _ out: OpaquePointer?, otherwise: mg_host_status = MG_HOST_ERROR
    ) -> mg_host_status {
        guard let problem else { return MG_HOST_OK }
        if let out = unsafe out { unsafe ValueWriter(out).append(problem) }
        return otherwise
    }

    static let host: mg_host = {
        var host = mg_host()
        unsafe host.field_get = { run, field, out in
            unsafe with(run, out, else: false) { $0.field(field, $1) }
        }
        unsafe host.field_set = { run, field, value, out in
            unsafe with(run, else: MG_HOST_ERROR) {
                unsafe answer($0.setField(field, ValueReader(value, count: 1)), out)
            }
        }
        unsafe host.map_get = { run, map, name, length, cursor, out in
            guard let cursor = unsafe cursor else { return false }
            return unsafe with(run, out, else: false) {
                unsafe $0.mapValue(map, span(name, length), &cursor.pointee, $1)
            }
        }
        unsafe host.map_entry = { run, map, cursor, out in
            guard let cursor = unsafe cursor else { return false }
            return unsafe with(run, out, else: false) { unsafe $0.mapEntry(map, &cursor.pointee, $1) }
        }
        unsafe host.map_edit = { run, map, edit, name, nameLength, value, valueLength, out in
            unsafe with(run, out, else: MG_HOST_ERROR) {
                unsafe answer($0.edit(map, edit, span(name, nameLength), span(value, valueLength), $1), out)
            }
        }
        unsafe host.cookie_set = { run, name, nameLength, value, valueLength, attributes, count, out in
            unsafe with(run, else: MG_HOST_ERROR) { run in
                // One more than there are, so that one which is not known is found.
                let entries = unsafe ValueReader(attributes, count: count).entries(at: 0, limit: 9) ?? []
                return unsafe answer(
                    run.setCookie(
                        span(name, nameLength), to: span(value, valueLength), removes: value == nil, entries), out)
            }
        }
        unsafe host.unit = { run, source, length, out in
            unsafe with(run, out, else: MG_HOST_ERROR) {
                unsafe answer($0.unit(span(source, length), $1), out, otherwise: $0.unitRefusal)
            }
        }
        unsafe host.tag = { run, key, length, value, out in
            unsafe with(run, else: MG_HOST_ERROR) {
                unsafe answer($0.tag(span(key, length), ValueReader(value, count: 1)), out)
            }
        }
        unsafe host.upstream = { run, operation, arguments, count, out in
            unsafe with(run, else: MG_HOST_ERROR) {
                unsafe answer($0.upstream(operation, ValueReader(arguments, count: count)), out)
            }
        }
        unsafe host.shared_get = { run, key, length, out in
            unsafe with(run, out, else: false) { unsafe $0.sharedValue(span(key, length), $1) }
        }
        unsafe host.shared_set = { run, key, length, values, count, out in
            unsafe with(run, else: MG_HOST_ERROR) {
                unsafe answer($0.setShared(span(key, length), ValueReader(values, count: count).value(at: 0)), out)
            }
        }
        unsafe host.respond = { run, status, fields, count, body, bodyLength, out in
            unsafe with(run, else: MG_HOST_ERROR) {
                unsafe answer(
                    $0.respond(status: status, fieldCount: count, body: span(body, bodyLength)) { index in
                        guard let pair = unsafe fields?[index] else { return ([], []) }
                        return unsafe (
                            copy(pair.name, pair.name_length), copy(pair.value, pair.value_length)
                        )
                    }, out)
            }
        }
        unsafe host.check_field = { _, name, nameLength, value, valueLength, out in
            unsafe answer(BorderRun.fieldProblem(span(name, nameLength), span(value, valueLength)), out)
        }
        unsafe host.call = { host, run, function, arguments, count, arity, out in
            guard let host = unsafe host, let out = unsafe out else { return MG_HOST_ERROR }
            return unsafe Unmanaged<ScriptVM.HostLink>.fromOpaque(host)._withUnsafeGuaranteedRef { link in
                guard link.functions.indices.contains(Int(function)) else { return MG_HOST_ERROR }
                let current = unsafe run.map { unsafe Unmanaged<BorderRun>.fromOpaque($0).takeUnretainedValue() }
                var call = unsafe HostCall(
                    reader: ValueReader(arguments, count: count), writer: ValueWriter(out), count: Int(arity),
                    run: current)
                switch link.functions[Int(function)](&call) {
                case .done: return MG_HOST_OK
                case .suspended: return MG_HOST_SUSPEND
                case .crowded(let message):
                    call.pushFailure(code: "budget", message: message)
                    return MG_HOST_CROWDED
                case .failed(let message):
                    // Results that were pushed before are no message.
                    unsafe mg_out_clear(out)
                    unsafe ValueWriter(out).append(message)
                    return MG_HOST_ERROR
                }
            }
        }
        unsafe host.release = { host, type, handle in
            guard let host = unsafe host else { return }
            unsafe Unmanaged<ScriptVM.HostLink>.fromOpaque(host)._withUnsafeGuaranteedRef {
                $0.releases[type]?(handle)
            }
        }
        return host
    }()

    private static func copy(_ bytes: UnsafePointer<CChar>?, _ count: Int) -> [UInt8] {
        guard let bytes = unsafe bytes, count > 0 else { return [] }
        return unsafe Array(UnsafeRawBufferPointer(start: UnsafeRawPointer(bytes), count: count))
    }
}

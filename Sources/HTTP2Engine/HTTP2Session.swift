// One HTTP/2 connection without its socket: bytes in and events out, bytes out for what is submitted. The protocol is
// nghttp2's; its callbacks only record into the session's memory, and whoever drives it acts when the call has come
// back. Bodies are never kept here: data that came is a range of the input, data to be sent is asked for by count.
internal import CNGHTTP2
package import Model

/// One side of a connection: the server's, or the client's (`HTTP2Session+Client.swift`).
///
/// ```
///  receive ──▶ nextEvent … ──▶ adopt, submit, offer, end, consume, reset ──▶ nextOutput … ──▶ nextEvent …
/// ```
///
/// Belongs to one thread. Every stream that is adopted or requested answers `.closed` once, unless `forget` was called
/// before.
@safe package final class HTTP2Session {
    // SAFETY (of every use below): `session` is made in `init` and freed in `deinit` only; it holds a pointer to this
    // object, which is read in the callbacks of calls that are made on this object while it is alive. Streams carry a
    // number in their user data, never a pointer.
    var session: OpaquePointer?
    package let limits: HTTP2Limits
    let role: HTTP2Role
    /// The head of the last `.headReceived` or `.trailersReceived`: fields in the order in which they came, pseudo-fields
    /// first, each laid out in the arena as a line of HTTP/1.1. Whoever takes it may leave another one in its place.
    package var incoming = MessageHead()
    /// Why the session ends; `.none` while nothing is wrong.
    package private(set) var fault = HTTP2Fault.none
    /// The peer has asked for more than its accounts hold: that is what ended the session.
    package private(set) var isOverdrawn = false
    /// Streams that have been adopted and are not closed.
    package private(set) var streamCount = 0
    /// The first nine bytes of the frame of the last `.data`.
    package private(set) var frameHead = InlineArray<9, UInt8>(repeating: 0)

    /// Those that nothing is done about, and that have not ended.
    private var passedOver = 0
    private var splitter: FrameSplitter
    var budget: FrameBudget
    private var now: UInt64 = 0
    private var events: [HTTP2Event] = []
    private var eventIndex = 0
    /// Where the input that is being read begins; nil outside of `receive`.
    private var input: UnsafeRawPointer?
    private var inputCount = 0
    private var blockSize = 0
    private var blockIsCut = false
    var slots: [Slot] = []
    private var freeSlots: [Int32] = []
    private var names: [nghttp2_nv] = unsafe []
    private var controlBytes: UnsafePointer<UInt8>?
    private var controlCount = 0
    private var pendingData: (owner: UInt64, count: Int)?
    /// Slots whose body has gone and whose trailers have not.
    private var trailersDue: [Int] = []
    /// Slots whose end came when all of the body had gone. The library makes no frame of data while a window is shut, not
    /// even of none.
    private(set) var endsDue: [Int] = []
    /// The frame that the library has just made is for itself alone.
    private var isSilent = false
    /// Such frames that it has not made yet: until then it counts their streams as open.
    private var silentCloses = 0
    /// Our first frame. SAFETY: allocated once, in `init`, and freed in `deinit`.
    private var greeting = unsafe UnsafeMutableBufferPointer<UInt8>(start: nil, count: 0)
    private var hasGreeted = true
    private var saysFarewell = false
    /// No stream is taken any more.
    private var isClosing = false
    /// The last that is taken then.
    private var lastTaken: Int32 = 0
    /// The highest stream that the peer has begun.
    private var lastStream: Int32 = 0
    /// Streams that we have reset, the latest of them: what their peer had sent before it knew is no fault of its own.
    private var resetStreams: [Int32] = []
    private var nextReset = 0
    /// The stream whose first head is being read, until the library has taken it up; one that it refuses it never does.
    private var untaken: Int32 = 0
    private static let mostRemembered = 1_024

    struct Slot {
        var stream: Int32
        var owner: UInt64
        /// Bytes of the body that were offered and are in no frame yet.
        var available = 0
        var isEnded = false
        var trailers: MessageHead?
        /// The end of our side is in a frame, or its trailers are submitted.
        var endHasGone = false
        /// The library was not asked for that frame, and does not know that our side has ended.
        var endedBesideLibrary = false
        /// Of a response of ours: heads that are in no frame yet.
        var heads: Int32 = 0
        /// Of a request of ours: its head has been framed; its final response has not come; it could not be sent.
        var wasSent = false
        var awaitsHead = false
        var wasRefused = false
    }

    /// Nil when there is no memory.
    package init?(_ limits: HTTP2Limits, role: HTTP2Role = .server) {
        self.limits = limits
        self.role = role
        splitter = FrameSplitter(expectsPreface: role == .server)
        budget = FrameBudget(role, isWary: limits.isWary)
        var callbacks: OpaquePointer?
        var option: OpaquePointer?
        guard unsafe nghttp2_session_callbacks_new(&callbacks) == 0, let callbacks = unsafe callbacks else {
            return nil
        }
        defer { unsafe nghttp2_session_callbacks_del(callbacks) }
        guard unsafe nghttp2_option_new(&option) == 0, let option = unsafe option else { return nil }
        defer { unsafe nghttp2_option_del(option) }
        unsafe Self.register(callbacks)
        unsafe nghttp2_option_set_no_auto_window_update(option, 1)
        // Behind our own budget, should that ever be wrong.
        unsafe nghttp2_option_set_max_outbound_ack(option, 256)
        unsafe nghttp2_option_set_max_settings(option, 32)
        // It counts the pieces in which a frame's nine bytes come, not the frames.
        unsafe nghttp2_option_set_max_continuations(option, 10 * FrameBudget.mostContinuations)
        unsafe nghttp2_option_set_stream_reset_rate_limit(option, 1_000, 100)
        // Ours are bounded by what is taken from upstreams and scripts; one that the library dropped would hang its stream.
        unsafe nghttp2_option_set_max_send_header_block_length(option, 1 << 20)
        unsafe nghttp2_option_set_no_closed_streams(option, 1)
        // Until a server has said how many requests it takes, it is asked few: more would be refused.
        if role == .client { unsafe nghttp2_option_set_peer_max_concurrent_streams(option, 16) }
        let context = unsafe Unmanaged.passUnretained(self).toOpaque()
        let made =
            switch role {
            case .server: unsafe nghttp2_session_server_new2(&session, callbacks, context, option)
            case .client: unsafe nghttp2_session_client_new2(&session, callbacks, context, option)
            }
        guard made == 0 else { return nil }
        var settings = [
            Self.setting(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, limits.streamWindow),
            Self.setting(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, limits.headBytes),
        ]
        switch role {
        case .server:
            settings.append(Self.setting(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, limits.streams + Self.refusable))
            // WebSocket (RFC 8441 §3).
            settings.append(Self.setting(NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1))
            // The tree of priorities is a client's hold on our memory and time, and nobody uses it any more.
            settings.append(Self.setting(NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1))
        case .client:
            // Nobody would read what is pushed (RFC 9113 §8.4).
            settings.append(Self.setting(NGHTTP2_SETTINGS_ENABLE_PUSH, 0))
        }
        // SAFETY: the library copies the settings during the call.
        let code = unsafe settings.withUnsafeBufferPointer {
            unsafe nghttp2_submit_settings(session, 0, $0.baseAddress, $0.count)
        }
        guard code == 0, role == .client || greet(),
            unsafe nghttp2_session_set_local_window_size(session, 0, 0, Int32(clamping: limits.connectionWindow)) == 0
        else { return nil }
    }

    /// The library would end a connection for one stream too many, and its client is to lose that stream alone (RFC 9113
    /// §5.1.2). So the library is told of a higher bound than the client, and we refuse what lies between. It can't be asked for
    /// that: the number is changed in the frame that it makes.
    private func greet() -> Bool {
        var bytes: UnsafePointer<UInt8>?
        let count = unsafe nghttp2_session_mem_send(session, &bytes)
        guard count > 0, let start = unsafe bytes else { return false }
        // SAFETY: the library lends them until its next call.
        unsafe greeting = .allocate(capacity: count)
        for i in 0..<count { unsafe greeting.initializeElement(at: i, to: start[i]) }
        hasGreeted = false
        let bound = UInt32(clamping: limits.streams)
        for entry in stride(from: 9, through: count - 6, by: 6)
        where unsafe start[entry] == 0 && start[entry + 1] == NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS.rawValue {
            for i in 0..<4 {
                unsafe greeting[entry + 2 + i] = UInt8(truncatingIfNeeded: bound >> UInt32(24 - 8 * i))
            }
        }
        return true
    }

    /// Streams beyond the bound that the library may know until they are refused: more than may be reset in a moment.
    private static let refusable = 600

    deinit {
        unsafe nghttp2_session_del(session)
        unsafe greeting.deallocate()
    }

    private static func setting(_ id: nghttp2_settings_id, _ value: Int) -> nghttp2_settings_entry {
        nghttp2_settings_entry(settings_id: Int32(id.rawValue), value: UInt32(clamping: value))
    }

    // MARK: In

    /// A header block has begun, and its end has not come.
    package var isReadingHead: Bool { splitter.isReadingHead }

    /// Takes the bytes from `offset` on up to the end of one frame, and moves `offset` behind them; what they meant is
    /// then told by `nextEvent`. `now` in milliseconds. After a fault, and after the session is over, all bytes are
    /// passed over.
    package func receive(_ bytes: RawSpan, at offset: inout Int, now: UInt64) {
        self.now = now
        guard fault == .none else {
            offset = bytes.byteCount
            return
        }
        let start = offset
        let (end, head) = splitter.next(Span<UInt8>(_bytes: bytes), from: start)
        offset = end
        let beginsStream = head.map { $0.type == FrameHead.headers && $0.stream > lastStream && !isClosing } ?? false
        if let head, !budget.admit(head, beginsStream: beginsStream, now: now) {
            fail(head.type == FrameHead.continuation ? .headers : .flood)
            return
        }
        // The library passes priorities over, also where they may not be (RFC 9113 §6.3).
        if let head, head.type == FrameHead.priority, head.stream == 0 {
            fail(.malformed)
            return
        }
        if role == .server, let head, head.type == FrameHead.headers {
            // It was refused, and may go on in the same read, before that could be said.
            if untaken != 0 { remember(reset: untaken) }
            untaken = 0
            if head.stream > lastStream {
                lastStream = head.stream
                untaken = head.stream
            } else if beginsAgain(head.stream) {
                fail(.malformed, .streamClosed)
                return
            }
        }
        // SAFETY: the library reads `start..<end` of the span during the call, and the callbacks compare addresses with
        // `input`, which is forgotten before the span is.
        let code = unsafe bytes.withUnsafeBytes { buffer -> Int in
            guard let base = buffer.baseAddress, end > start else { return 0 }
            unsafe input = base
            inputCount = buffer.count
            defer { unsafe input = nil }
            return unsafe nghttp2_session_mem_recv(
                session, (base + start).assumingMemoryBound(to: UInt8.self), end - start)
        }
        if code < 0 { fail(fault == .none ? Self.fault(of: code) : fault) }
    }

    private static func fault(of code: Int) -> HTTP2Fault {
        switch nghttp2_error(Int32(clamping: code)) {
        case NGHTTP2_ERR_FLOODED: .flood
        case NGHTTP2_ERR_TOO_MANY_SETTINGS, NGHTTP2_ERR_BAD_CLIENT_MAGIC: .malformed
        case NGHTTP2_ERR_TOO_MANY_CONTINUATIONS: .headers
        default: .internalError
        }
    }

    /// Whether a head comes on a stream that is over, or was passed over (RFC 9113 §5.1.1). Left to itself, the library
    /// decodes and forgets it: a request for which nobody would ever be answered.
    private func beginsAgain(_ stream: Int32) -> Bool {
        // An even one, and none at all, are the library's to refuse.
        guard stream & 1 == 1 else { return false }
        // SAFETY: only looked for, not kept.
        return unsafe nghttp2_session_find_stream(session, stream) == nil && !resetStreams.contains(stream)
    }

    private func remember(reset stream: Int32) {
        if resetStreams.count < Self.mostRemembered {
            resetStreams.append(stream)
        } else {
            resetStreams[nextReset] = stream
            nextReset = (nextReset + 1) % Self.mostRemembered
        }
    }

    /// Says why in GOAWAY; nothing that still comes is read.
    private func fail(_ fault: HTTP2Fault, _ code: HTTP2ErrorCode? = nil) {
        self.fault = fault
        isOverdrawn = fault.isFlood
        sendGoAway(code ?? fault.code)
    }

    private func sendGoAway(_ code: HTTP2ErrorCode) {
        unsafe nghttp2_session_terminate_session(session, code.rawValue)
    }

    /// Streams that begin in these bytes, which `receive` is given next, and are reset in them as well.
    package func doomedStreams(in bytes: RawSpan) -> Set<Int32> {
        var splitter = splitter
        var doomed: Set<Int32> = []
        var at = 0
        while at < bytes.byteCount {
            let (end, head) = splitter.next(Span<UInt8>(_bytes: bytes), from: at)
            if let head, head.type == FrameHead.rstStream, head.stream > lastStream { doomed.insert(head.stream) }
            at = end
        }
        return doomed
    }

    /// The client has made us end a stream in the middle, whichever frame says so: that counts like a reset of its own
    /// (MadeYouReset).
    package func provoked() {
        if role == .server, fault == .none, !budget.reset(now: now) { fail(.resets) }
    }

    /// The next thing that happened; nil when all has been told.
    package func nextEvent() -> HTTP2Event? {
        guard eventIndex < events.count else {
            if eventIndex > 0 {
                events.removeAll(keepingCapacity: events.capacity <= 64)
                eventIndex = 0
            }
            return nil
        }
        eventIndex += 1
        return events[eventIndex - 1]
    }

    // MARK: Streams

    /// Takes a stream of `.headReceived` up: its events carry `owner` from here on. Streams are given the connection in
    /// turns, whatever priority their client asks for.
    package func adopt(stream: Int32, owner: UInt64) -> HTTP2Handle {
        let row = insert(Slot(stream: stream, owner: owner))
        var priority = nghttp2_extpri(urgency: UInt32(NGHTTP2_EXTPRI_DEFAULT_URGENCY), inc: 1)
        unsafe nghttp2_session_set_stream_user_data(session, stream, Self.tag(row))
        unsafe nghttp2_session_change_extpri_stream_priority(session, stream, &priority, 1)
        return HTTP2Handle(stream: stream, row: row)
    }

    /// Nothing is done about a stream of `.headReceived`: until it ends it counts among those that are open.
    package func passOver(stream: Int32) {
        passedOver += 1
        unsafe nghttp2_session_set_stream_user_data(session, stream, Self.tag(Self.noRow))
    }

    /// Of streams that were passed over: there are never so many rows.
    private static let noRow = Int32.max - 1

    func insert(_ slot: Slot) -> Int32 {
        streamCount += 1
        if let free = freeSlots.popLast() {
            slots[Int(free)] = slot
            return free
        }
        slots.append(slot)
        return Int32(truncatingIfNeeded: slots.count - 1)
    }

    /// The owners of all streams that are adopted or requested, and not closed.
    package var owners: [UInt64] { slots.filter { $0.stream != 0 }.map(\.owner) }

    /// How many streams there may be at the most; `owner(at:)` of each number below tells whether there is one.
    package var rows: Int { slots.count }

    /// The owner of an adopted stream, by a number below `rows`.
    package func owner(at row: Int) -> UInt64? {
        row < slots.count && slots[row].stream != 0 ? slots[row].owner : nil
    }

    /// Nothing of this stream is to be told any more.
    package func forget(_ handle: HTTP2Handle) {
        guard let row = row(handle) else { return }
        release(row)
        unsafe nghttp2_session_set_stream_user_data(session, handle.stream, nil)
    }

    func release(_ row: Int) {
        slots[row] = Slot(stream: 0, owner: 0)
        freeSlots.append(Int32(truncatingIfNeeded: row))
        streamCount -= 1
    }

    /// The row of a stream that is alive and not forgotten.
    func row(_ handle: HTTP2Handle) -> Int? {
        let row = Int(handle.row)
        return row < slots.count && slots[row].stream == handle.stream ? row : nil
    }

    static func tag(_ row: Int32) -> UnsafeMutableRawPointer? {
        unsafe UnsafeMutableRawPointer(bitPattern: Int(row) + 1)
    }

    static func row(_ tag: UnsafeMutableRawPointer?) -> Int? {
        let bits = Int(bitPattern: tag)
        return bits > 0 ? bits - 1 : nil
    }

    /// Submits the head of a response, or an informational one; the first field of `head` is `:status`. `hasBody`: data
    /// or trailers follow.
    package func submit(_ handle: HTTP2Handle, head: borrowing MessageHead, isFinal: Bool, hasBody: Bool) {
        guard let row = row(handle) else { return }
        let stream = handle.stream
        slots[row].heads += 1
        // SAFETY: the library copies names and values during the call; the data source is a number.
        unsafe withNames(of: head) { names in
            if !isFinal {
                unsafe nghttp2_submit_headers(
                    session, UInt8(NGHTTP2_FLAG_NONE.rawValue), stream, nil, names.baseAddress, names.count, nil)
            } else if hasBody {
                var source = unsafe nghttp2_data_provider(
                    source: nghttp2_data_source(ptr: Self.tag(Int32(truncatingIfNeeded: row))), read_callback: readData)
                unsafe nghttp2_submit_response(session, stream, names.baseAddress, names.count, &source)
            } else {
                unsafe nghttp2_submit_response(session, stream, names.baseAddress, names.count, nil)
            }
        }
    }

    func withNames(
        of head: borrowing MessageHead, _ body: (UnsafeMutableBufferPointer<nghttp2_nv>) -> Void
    ) {
        unsafe names.removeAll(keepingCapacity: true)
        let fields = head.fields
        // SAFETY: the ranges are within the bytes (checked), which stay lent to the end of the closure; the library
        // only reads them.
        unsafe head.bytes.withUnsafeBufferPointer { bytes in
            for field in fields
            where field.nameRange.upperBound <= bytes.count && field.valueRange.upperBound <= bytes.count {
                guard let base = bytes.baseAddress else { break }
                unsafe names.append(
                    nghttp2_nv(
                        name: UnsafeMutablePointer(mutating: base + field.nameRange.lowerBound),
                        value: UnsafeMutablePointer(mutating: base + field.valueRange.lowerBound),
                        namelen: field.nameRange.count, valuelen: field.valueRange.count,
                        flags: UInt8(NGHTTP2_NV_FLAG_NONE.rawValue)))
            }
            unsafe names.withUnsafeMutableBufferPointer { unsafe body($0) }
        }
    }

    /// So many more bytes of the body are there to be sent.
    package func offer(_ handle: HTTP2Handle, _ count: Int) {
        guard let row = row(handle) else { return }
        slots[row].available += count
        resume(handle)
    }

    private func resume(_ handle: HTTP2Handle) {
        unsafe nghttp2_session_resume_data(session, handle.stream)
    }

    /// The body ends with what has been offered, or with the trailers behind it.
    package func end(_ handle: HTTP2Handle, trailers: consuming MessageHead?) {
        guard let row = row(handle) else { return }
        slots[row].isEnded = true
        slots[row].trailers = trailers
        if slots[row].available == 0, role == .server || slots[row].wasSent { allHasGone(row) }
        resume(handle)
    }

    /// What is left of a stream is its end: that needs no window (RFC 9113 §6.9), and the reader of another stream that
    /// has shut the connection's may not hold it up.
    private func allHasGone(_ row: Int) {
        if slots[row].trailers != nil {
            trailersDue.append(row)
            return
        }
        // Taken out when the library has nothing to send, which may be never: those that it has ended itself are.
        if endsDue.count > 2 * slots.count {
            endsDue = slots.indices.filter { slots[$0].stream != 0 && slots[$0].isEnded && !slots[$0].endHasGone }
        }
        endsDue.append(row)
    }

    /// Whether nothing of what was submitted and offered waits to be framed. A reset goes before what does, which is lost.
    package func isFramed(_ handle: HTTP2Handle) -> Bool {
        guard let row = row(handle) else { return true }
        return slots[row].heads <= 0 && slots[row].available == 0
    }

    /// So many bytes of the stream's body have been taken: its sender may send as many more. The connection's window was
    /// opened when they came.
    package func consume(_ handle: HTTP2Handle, _ count: Int) {
        guard count > 0, row(handle) != nil else { return }
        unsafe nghttp2_session_consume_stream(session, handle.stream, count)
    }

    /// Ends a stream at once, adopted or not.
    package func reset(stream: Int32, _ code: HTTP2ErrorCode) { submitReset(stream, code.rawValue) }

    private func submitReset(_ stream: Int32, _ code: UInt32) {
        unsafe nghttp2_submit_rst_stream(session, UInt8(NGHTTP2_FLAG_NONE.rawValue), stream, code)
    }

    // MARK: The end

    /// Says that the connection will end, without refusing what is on its way (RFC 9113 §6.8); `.pingAnswered` tells
    /// when the client knows. Then `finish`.
    package func announceEnd() {
        guard !saysFarewell, fault == .none else { return }
        saysFarewell = true
        unsafe nghttp2_submit_shutdown_notice(session)
    }

    /// Takes no new streams; those that are open go on.
    package func finish() {
        guard fault == .none else { return }
        isClosing = true
        lastTaken = unsafe nghttp2_session_get_last_proc_stream_id(session)
        unsafe nghttp2_submit_goaway(
            session, UInt8(NGHTTP2_FLAG_NONE.rawValue), lastTaken, HTTP2ErrorCode.noError.rawValue, nil, 0)
    }

    /// Ends the session: GOAWAY is the last thing that is sent.
    package func terminate(_ code: HTTP2ErrorCode) {
        guard fault == .none else { return }
        sendGoAway(code)
    }

    /// Nothing more will be read or written.
    package var isOver: Bool {
        unsafe nghttp2_session_want_read(session) == 0 && nghttp2_session_want_write(session) == 0
    }

    // MARK: Out

    /// What is to be written next. What it names (`control`, `frameHead`) holds until the next call on the session.
    package func nextOutput() -> HTTP2Output {
        if !hasGreeted {
            hasGreeted = true
            unsafe controlBytes = UnsafePointer(greeting.baseAddress)
            controlCount = unsafe greeting.count
            return .control
        }
        while true {
            var bytes: UnsafePointer<UInt8>?
            pendingData = nil
            let count = unsafe nghttp2_session_mem_send(session, &bytes)
            for row in trailersDue { submitTrailers(row) }
            let wereDue = !trailersDue.isEmpty
            trailersDue.removeAll(keepingCapacity: true)
            if let (owner, count) = pendingData {
                budget.passed(count, received: false)
                return .data(owner: owner, count: count)
            }
            if count > 0, !isSilent {
                unsafe controlBytes = bytes
                controlCount = count
                return .control
            }
            if count < 0, fault == .none { fail(.internalError) }
            if isSilent {
                isSilent = false
                continue
            }
            if wereDue { continue }
            if let output = nextEnd() { return output }
            return .nothing
        }
    }

    /// The bytes of the last `.control`.
    package var control: RawSpan {
        @_lifetime(borrow self)
        get {
            guard let start = unsafe controlBytes else { return RawSpan() }
            // SAFETY: the library keeps them until the next call of `nextOutput`, which needs the session that this
            // span borrows.
            let span = unsafe RawSpan(_unsafeStart: UnsafeRawPointer(start), byteCount: controlCount)
            return unsafe _overrideLifetime(span, borrowing: self)
        }
    }

    /// The library has nothing to send: of the streams that have ended, those that are still here wait for a window. Their
    /// last frame, which is empty, is made beside it.
    private func nextEnd() -> HTTP2Output? {
        while let row = endsDue.popLast() {
            let slot = slots[row]
            guard slot.stream != 0, slot.isEnded, slot.available == 0, slot.trailers == nil, !slot.endHasGone,
                role == .client ? slot.wasSent : slot.heads <= 0, fault == .none
            else { continue }
            // What the library is to know of it is: there is nothing more.
            slots[row].isEnded = false
            slots[row].endHasGone = true
            slots[row].endedBesideLibrary = true
            frameHead = InlineArray(repeating: 0)
            frameHead[4] = FrameHead.endStream
            for i in 0..<4 { frameHead[5 + i] = UInt8(truncatingIfNeeded: slot.stream >> Int32(24 - 8 * i)) }
            events.append(.finished(owner: slot.owner))
            // SAFETY: only asked for.
            if unsafe nghttp2_session_get_stream_remote_close(session, slot.stream) == 1 { closeSilently(slot.stream) }
            return .data(owner: slot.owner, count: 0)
        }
        return nil
    }

    /// Both sides of the stream have ended, and the library knows of its peer's alone: it closes the stream by a reset that
    /// nobody is sent.
    private func closeSilently(_ stream: Int32) {
        silentCloses += 1
        submitReset(stream, Self.silent)
    }

    /// No code of RFC 9113 §7.
    private static let silent = UInt32.max

    private func submitTrailers(_ row: Int) {
        let stream = slots[row].stream
        guard stream != 0, slots[row].isEnded, slots[row].available == 0, role == .server || slots[row].wasSent,
            let trailers = slots[row].trailers
        else { return }
        slots[row].trailers = nil
        slots[row].endHasGone = true
        slots[row].heads += 1
        // SAFETY: as in `submit`.
        unsafe withNames(of: trailers) { names in
            _ = unsafe nghttp2_submit_trailer(session, stream, names.baseAddress, names.count)
        }
    }
}

// MARK: - What the library calls

extension HTTP2Session {
    /// Each callback finds the session that the call was made on, records, and returns.
    fileprivate static func register(_ callbacks: OpaquePointer) {
        unsafe nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks) { _, _, context in
            unsafe HTTP2Session.at(context) { $0.headBegan() }
        }
        unsafe nghttp2_session_callbacks_set_on_header_callback(callbacks) {
            _, _, name, nameCount, value, valueCount, _, context in
            // SAFETY: the library lends both for the call.
            let name = unsafe UnsafeBufferPointer(start: name, count: nameCount)
            let value = unsafe UnsafeBufferPointer(start: value, count: valueCount)
            return unsafe HTTP2Session.at(context) { unsafe $0.fieldCame(name, value) }
        }
        // A field that may not be sent makes its message malformed (RFC 9113 §8.2.1); left to itself, the library drops
        // it in silence.
        unsafe nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks) { _, _, _, _, _, _, _, _ in
            NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue
        }
        unsafe nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks) { session, frame, context in
            guard let frame = unsafe frame?.pointee else { return 0 }
            let id = unsafe frame.hd.stream_id
            let tag = unsafe nghttp2_session_get_stream_user_data(session, id)
            return unsafe HTTP2Session.at(context) { unsafe $0.frameCame(frame, tag) }
        }
        unsafe nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks) {
            session, _, stream, data, count, context in
            let tag = unsafe nghttp2_session_get_stream_user_data(session, stream)
            return unsafe HTTP2Session.at(context) { unsafe $0.dataCame(tag, data, count) }
        }
        unsafe nghttp2_session_callbacks_set_on_stream_close_callback(callbacks) { session, stream, code, context in
            let tag = unsafe nghttp2_session_get_stream_user_data(session, stream)
            return unsafe HTTP2Session.at(context) { unsafe $0.streamClosed(tag, code) }
        }
        unsafe nghttp2_session_callbacks_set_on_frame_send_callback(callbacks) { session, frame, context in
            guard let frame = unsafe frame?.pointee else { return 0 }
            let id = unsafe frame.hd.stream_id
            let tag = unsafe nghttp2_session_get_stream_user_data(session, id)
            return unsafe HTTP2Session.at(context) { unsafe $0.frameWent(frame, tag) }
        }
        // A request that may not be sent any more: its stream is closed by the library next.
        unsafe nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks) { session, frame, _, context in
            guard let id = unsafe frame?.pointee.hd.stream_id, unsafe frame?.pointee.hd.type == FrameHead.headers else {
                return 0
            }
            let tag = unsafe nghttp2_session_get_stream_user_data(session, id)
            return unsafe HTTP2Session.at(context) { unsafe $0.headDidNotGo(tag) }
        }
        unsafe nghttp2_session_callbacks_set_send_data_callback(callbacks) { _, _, head, count, source, context in
            guard let head = unsafe head, let tag = unsafe source?.pointee.ptr else { return 0 }
            return unsafe HTTP2Session.at(context) { unsafe $0.dataFramed(tag, head, count) }
        }
    }

    /// SAFETY: `context` is what `init` gave the library, which calls only while a call on the session is under way.
    private static func at(_ context: UnsafeMutableRawPointer?, _ body: (HTTP2Session) -> Int32) -> Int32 {
        guard let context = unsafe context else { return NGHTTP2_ERR_CALLBACK_FAILURE.rawValue }
        return unsafe Unmanaged<HTTP2Session>.fromOpaque(context)._withUnsafeGuaranteedRef { body($0) }
    }

    private func headBegan() -> Int32 {
        untaken = 0
        incoming.removeAll()
        blockSize = 0
        blockIsCut = false
        return 0
    }

    private func fieldCame(_ name: UnsafeBufferPointer<UInt8>, _ value: UnsafeBufferPointer<UInt8>) -> Int32 {
        blockSize += name.count + value.count + 32
        guard blockSize <= limits.headBytes, incoming.fields.count < limits.fields, name.count <= 65_535 else {
            // Nothing of it is kept from here on. The rest has to be decoded all the same, for the sake of the table
            // that the next block refers to; how much of it is bounded too.
            blockIsCut = true
            if blockSize > 4 * limits.headBytes {
                fault = .headers
                return NGHTTP2_ERR_CALLBACK_FAILURE.rawValue
            }
            return 0
        }
        let nameStart = incoming.bytes.count
        unsafe incoming.bytes.append(contentsOf: name)
        incoming.bytes.append(0x3a)
        incoming.bytes.append(0x20)
        let valueStart = incoming.bytes.count
        unsafe incoming.bytes.append(contentsOf: value)
        incoming.bytes.append(0x0d)
        incoming.bytes.append(0x0a)
        incoming.record(
            name: ByteRange(offset: nameStart, count: name.count),
            value: ByteRange(offset: valueStart, count: value.count))
        return 0
    }

    private func frameCame(_ frame: nghttp2_frame, _ tag: UnsafeMutableRawPointer?) -> Int32 {
        let head = unsafe frame.hd
        let ends = head.flags & FrameHead.endStream != 0
        switch head.type {
        case FrameHead.headers:
            if unsafe frame.headers.cat == NGHTTP2_HCAT_REQUEST {
                // One that came before GOAWAY went, which says that nothing is done about it (its client asks again elsewhere,
                // RFC 9113 §6.8), and one too many.
                if isClosing && head.stream_id > lastTaken || streamCount + passedOver - silentCloses >= limits.streams
                {
                    reset(stream: head.stream_id, .refusedStream)
                    break
                }
                // One that is cut was dear to decode, and cheap to send: it pays for nothing, and counts as a reset.
                if !blockIsCut { budget.began() } else { provoked() }
                events.append(.headReceived(stream: head.stream_id, ends: ends, isCut: blockIsCut))
            } else if let owner = unsafe owner(tag), let row = unsafe Self.row(tag) {
                if slots[row].awaitsHead {
                    slots[row].awaitsHead = isInformational(incoming)
                    events.append(.responseReceived(owner: owner, ends: ends, isCut: blockIsCut))
                } else {
                    events.append(.trailersReceived(owner: owner, isCut: blockIsCut))
                }
            }
        case FrameHead.data:
            if ends, let owner = unsafe owner(tag) {
                budget.ended()
                events.append(.ended(owner: owner))
            }
        case FrameHead.rstStream:
            switch role {
            case .server: if !budget.reset(now: now), fault == .none { fail(.resets) }
            case .client:
                if let owner = unsafe owner(tag) {
                    events.append(.resetReceived(owner: owner, code: unsafe frame.rst_stream.error_code))
                }
            }
        case FrameHead.settings:
            if role == .client, !ends { events.append(.settingsReceived) }
        case FrameHead.ping:
            if ends { events.append(.pingAnswered) }
        case FrameHead.goAway:
            if role == .client { events.append(.goAwayReceived(code: unsafe frame.goaway.error_code)) }
        default: break
        }
        if ends, let row = unsafe Self.row(tag), row < slots.count, slots[row].stream == head.stream_id,
            slots[row].endedBesideLibrary, head.type == FrameHead.headers || head.type == FrameHead.data
        {
            closeSilently(head.stream_id)
        }
        return 0
    }

    private func dataCame(_ tag: UnsafeMutableRawPointer?, _ data: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
        budget.passed(count, received: true)
        // What one stream's reader leaves lying is held back by its own window: streams of others share the connection.
        unsafe nghttp2_session_consume_connection(session, count)
        guard let data = unsafe data, let base = unsafe input else { return NGHTTP2_ERR_CALLBACK_FAILURE.rawValue }
        let offset = unsafe UnsafeRawPointer(data) - base
        guard offset >= 0, offset + count <= inputCount else { return NGHTTP2_ERR_CALLBACK_FAILURE.rawValue }
        if let owner = unsafe owner(tag) { events.append(.dataReceived(owner: owner, offset..<offset + count)) }
        return 0
    }

    private func streamClosed(_ tag: UnsafeMutableRawPointer?, _ code: UInt32) -> Int32 {
        if unsafe tag == Self.tag(Self.noRow) { passedOver = max(0, passedOver - 1) }
        guard let row = unsafe Self.row(tag), let owner = unsafe owner(tag) else { return 0 }
        let code = slots[row].wasRefused ? HTTP2ErrorCode.refusedStream.rawValue : code == Self.silent ? 0 : code
        release(row)
        events.append(.closed(owner: owner, code: code))
        return 0
    }

    private func frameWent(_ frame: nghttp2_frame, _ tag: UnsafeMutableRawPointer?) -> Int32 {
        let head = unsafe frame.hd
        switch head.type {
        case FrameHead.headers, FrameHead.data:
            if let row = unsafe Self.row(tag), row < slots.count {
                if role == .client, !slots[row].wasSent {
                    slots[row].wasSent = true
                    if slots[row].isEnded, slots[row].available == 0 { allHasGone(row) }
                }
                if role == .server, head.type == FrameHead.headers { slots[row].heads -= 1 }
            }
            if head.flags & FrameHead.endStream != 0, let owner = unsafe owner(tag) {
                events.append(.finished(owner: owner))
            }
        case FrameHead.rstStream:
            let code = unsafe frame.rst_stream.error_code
            if code == Self.silent {
                isSilent = true
                silentCloses = max(0, silentCloses - 1)
                break
            }
            guard role == .server else { break }
            if untaken == head.stream_id { untaken = 0 }
            remember(reset: head.stream_id)
            // Those that the client has provoked count like its own; `provoked` tells of others.
            switch HTTP2ErrorCode(rawValue: code) {
            case .noError, .internalError, .cancel: break
            default: provoked()
            }
        case FrameHead.goAway:
            let (code, last) = unsafe (frame.goaway.error_code, frame.goaway.last_stream_id)
            if saysFarewell, !isClosing, last == Int32.max {
                // Behind it, and not before, as the library would send both: who answers has heard it.
                unsafe nghttp2_submit_ping(session, UInt8(NGHTTP2_FLAG_NONE.rawValue), nil)
            }
            if code != 0, fault == .none {
                fault = code == HTTP2ErrorCode.enhanceYourCalm.rawValue ? .flood : .malformed
            }
        default: break
        }
        return 0
    }

    private func headDidNotGo(_ tag: UnsafeMutableRawPointer?) -> Int32 {
        if let row = unsafe Self.row(tag), row < slots.count, !slots[row].wasSent { slots[row].wasRefused = true }
        return 0
    }

    private func dataFramed(
        _ tag: UnsafeMutableRawPointer, _ head: UnsafePointer<UInt8>, _ count: Int
    ) -> Int32 {
        guard let owner = unsafe owner(tag) else { return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue }
        // SAFETY: a frame's head has nine bytes.
        for i in 0..<9 { unsafe frameHead[i] = head[i] }
        pendingData = (owner, count)
        if count > 0, let row = unsafe Self.row(tag), slots[row].available == 0 { budget.passedWhole() }
        return NGHTTP2_ERR_PAUSE.rawValue
    }

    private func owner(_ tag: UnsafeMutableRawPointer?) -> UInt64? {
        guard let row = unsafe Self.row(tag), row < slots.count, slots[row].stream != 0 else { return nil }
        return slots[row].owner
    }

    /// How much of a body goes into the next frame.
    fileprivate func frameBody(
        _ tag: UnsafeMutableRawPointer?, of stream: Int32, _ most: Int, _ flags: inout UInt32
    ) -> Int {
        guard let row = unsafe Self.row(tag), row < slots.count, slots[row].stream == stream else {
            return Int(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue)
        }
        let count = min(most, slots[row].available)
        if count == 0, !slots[row].isEnded { return Int(NGHTTP2_ERR_DEFERRED.rawValue) }
        slots[row].available -= count
        flags |= UInt32(NGHTTP2_DATA_FLAG_NO_COPY.rawValue)
        if slots[row].isEnded, slots[row].available == 0 {
            flags |= UInt32(NGHTTP2_DATA_FLAG_EOF.rawValue)
            if slots[row].trailers == nil {
                slots[row].endHasGone = true
            } else {
                flags |= UInt32(NGHTTP2_DATA_FLAG_NO_END_STREAM.rawValue)
                trailersDue.append(row)
            }
        }
        return count
    }
}

let readData: nghttp2_data_source_read_callback = { _, stream, _, most, flags, source, context in
    guard let flags = unsafe flags, let source = unsafe source, let context = unsafe context else {
        return Int(NGHTTP2_ERR_CALLBACK_FAILURE.rawValue)
    }
    // SAFETY: as in `HTTP2Session.at`.
    return unsafe Unmanaged<HTTP2Session>.fromOpaque(context)._withUnsafeGuaranteedRef { session in
        unsafe session.frameBody(source.pointee.ptr, of: stream, most, &flags.pointee)
    }
}

import Synchronization
import Testing

@testable import Reactor

@Suite struct MailboxTests {
    @Test func ringsOnceForManyAndKeepsTheirOrder() throws {
        let mailbox = try Mailbox<Int>()
        let poller = try Poller(capacity: 8)
        try poller.register(mailbox.bell, Token(kind: 4, index: 0, generation: 0))
        let thread = try LoopThread(name: "poster") {
            for n in 0..<1_000 { mailbox.post(n) }
        }
        thread.join()
        #expect(poller.wait(milliseconds: 30_000) == 1)
        #expect(poller[0].token.kind == 4)
        #expect(mailbox.collect() == Array(0..<1_000))
        #expect(poller.wait(milliseconds: 0) == 0)
        mailbox.post(7)
        #expect(poller.wait(milliseconds: 30_000) == 1)
        #expect(mailbox.collect() == [7])
        #expect(mailbox.collect().isEmpty)
    }

    @Test func aLoopThreadRunsToItsEnd() throws {
        let ran = Mutex(false)
        let thread = try LoopThread(name: "a name that is too long", cpu: 0) { ran.withLock { $0 = true } }
        thread.join()
        thread.join()
        #expect(ran.withLock { $0 })
        #expect(LoopThread.availableCPUs >= 1)
    }
}

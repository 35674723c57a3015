import Controller
import IngressTranslation
import KubernetesAPI
import Testing

@Suite struct ReferenceLimitTests {
    private func secrets(_ names: String...) -> ObjectReferences {
        var references = ObjectReferences()
        for name in names {
            let parts = name.split(separator: "/").map(String.init)
            references.secrets.insert(ObjectName(namespace: parts[0], name: parts[1]))
        }
        return references
    }

    private func limit(_ perNamespace: Int, _ total: Int) -> ReferenceLimit {
        var limit = ReferenceLimit()
        limit.perNamespace = perNamespace
        limit.total = total
        return limit
    }

    @Test func whatIsWithinTheLimitIsFollowed() {
        let wanted = secrets("a/1", "a/2", "b/1")
        let choice = limit(3, 9).choose(wanted, kept: .init(), always: .init())
        #expect(choice.followed == wanted)
        #expect(choice.refused.isEmpty)
    }

    @Test func aNamespaceIsCutByName() {
        let choice = limit(2, 9).choose(
            secrets("a/4", "a/3", "a/1", "a/2", "b/9"), kept: .init(), always: .init())
        #expect(choice.followed == secrets("a/1", "a/2", "b/9"))
        #expect(choice.refused == secrets("a/3", "a/4"))
    }

    /// However many one names, the first of everybody goes before the second of anybody.
    @Test func theWholeIsDealtOutInTurns() {
        let choice = limit(3, 4).choose(
            secrets("a/1", "a/2", "a/3", "b/1", "b/2", "z/1"), kept: .init(), always: .init())
        #expect(choice.followed == secrets("a/1", "b/1", "z/1", "a/2"))
    }

    @Test func whatIsFollowedKeepsItsPlace() {
        let kept = secrets("b/8", "b/9")
        let choice = limit(2, 3).choose(
            secrets("a/1", "a/2", "b/1", "b/8", "b/9"), kept: kept, always: .init())
        #expect(choice.followed == secrets("a/1", "b/8", "b/9"))
        #expect(choice.refused == secrets("a/2", "b/1"))
    }

    /// Whoever was there first, however much it has: a newcomer with one has it.
    @Test func aNewcomerIsNotShutOut() {
        let kept = secrets("a/1", "a/2", "a/3", "b/1", "b/2", "b/3")
        var wanted = kept
        wanted.formUnion(secrets("c/1"))
        let choice = limit(3, 6).choose(wanted, kept: kept, always: .init())
        #expect(choice.followed == secrets("a/1", "a/2", "a/3", "b/1", "b/2", "c/1"))
        #expect(choice.refused == secrets("b/3"))
        #expect(choice.crowdedOut == ["b"])
    }

    /// Who asks for too much is told so; who does not, that the others did.
    @Test func whoseLimitItIs() {
        let choice = limit(2, 2).choose(
            secrets("a/1", "a/2", "a/3", "b/1", "c/1"), kept: .init(), always: .init())
        #expect(choice.followed == secrets("a/1", "b/1"))
        #expect(choice.crowdedOut == ["c"])
    }

    /// Where all are watched by one watch, no descriptors are kept for single ones.
    @Test func whatIsKeptFreeForThem() {
        var options = ControllerOptions()
        #expect(options.referenceDescriptors == options.references.total)
        options.secrets = .namespaces
        #expect(options.referenceDescriptors == options.references.total)
        options.configMaps = .namespaces
        #expect(options.referenceDescriptors == 0)
    }

    @Test func secretsGoFirst() {
        var wanted = secrets("a/8", "a/9")
        wanted.configMaps = secrets("a/1").secrets
        let choice = limit(2, 9).choose(wanted, kept: .init(), always: .init())
        #expect(choice.followed == secrets("a/8", "a/9"))
    }

    @Test func whatTheOperatorAsksForIsNeverRefused() {
        let always = secrets("z/default")
        var wanted = secrets("a/1", "a/2", "z/1", "z/default")
        wanted.configMaps = secrets("a/1").secrets
        let choice = limit(1, 2).choose(wanted, kept: .init(), always: always)
        #expect(choice.followed.secrets == secrets("a/1", "z/default").secrets)
        #expect(choice.followed.configMaps.isEmpty)
        #expect(choice.refused.configMaps == secrets("a/1").secrets)
    }
}

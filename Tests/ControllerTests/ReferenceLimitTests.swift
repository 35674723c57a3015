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
        let (followed, refused) = limit(3, 9).choose(wanted, kept: .init(), always: .init())
        #expect(followed == wanted)
        #expect(refused.isEmpty)
    }

    @Test func aNamespaceIsCutByName() {
        let (followed, refused) = limit(2, 9).choose(
            secrets("a/4", "a/3", "a/1", "a/2", "b/9"), kept: .init(), always: .init())
        #expect(followed == secrets("a/1", "a/2", "b/9"))
        #expect(refused == secrets("a/3", "a/4"))
    }

    /// However many one names, the first of everybody goes before the second of anybody.
    @Test func theWholeIsDealtOutInTurns() {
        let (followed, _) = limit(3, 4).choose(
            secrets("a/1", "a/2", "a/3", "b/1", "b/2", "z/1"), kept: .init(), always: .init())
        #expect(followed == secrets("a/1", "b/1", "z/1", "a/2"))
    }

    @Test func whatIsFollowedKeepsItsPlace() {
        let kept = secrets("b/8", "b/9")
        let (followed, refused) = limit(2, 3).choose(
            secrets("a/1", "a/2", "b/1", "b/8", "b/9"), kept: kept, always: .init())
        #expect(followed == secrets("a/1", "b/8", "b/9"))
        #expect(refused == secrets("a/2", "b/1"))
    }

    @Test func whatTheOperatorAsksForIsNeverRefused() {
        let always = secrets("z/default")
        var wanted = secrets("a/1", "a/2", "z/1", "z/default")
        wanted.configMaps = secrets("a/1").secrets
        let (followed, refused) = limit(1, 2).choose(wanted, kept: .init(), always: always)
        #expect(followed.secrets == secrets("a/1", "z/default").secrets)
        #expect(followed.configMaps.isEmpty)
        #expect(refused.configMaps == secrets("a/1").secrets)
    }
}

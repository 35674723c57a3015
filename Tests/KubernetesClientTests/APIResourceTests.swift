import KubernetesAPI
import KubernetesClient
import Testing

@Suite struct APIResourceTests {
    @Test func paths() {
        #expect(Ingress.path(namespace: nil) == "/apis/networking.k8s.io/v1/ingresses")
        #expect(
            Ingress.path(namespace: "shop", name: "web", subresource: "status")
                == "/apis/networking.k8s.io/v1/namespaces/shop/ingresses/web/status")
        #expect(Secret.path(namespace: "shop", name: "tls") == "/api/v1/namespaces/shop/secrets/tls")
        #expect(IngressClass.path(namespace: "shop", name: "a") == "/apis/networking.k8s.io/v1/ingressclasses/a")
        #expect(Event.path(namespace: "shop") == "/apis/events.k8s.io/v1/namespaces/shop/events")
    }

    @Test func aNameCannotLeaveItsPlace() {
        #expect(Secret.path(namespace: "a/../b", name: "../x?y") == "/api/v1/namespaces/a%2F..%2Fb/secrets/..%2Fx%3Fy")
    }

    @Test func queriesAreEncoded() {
        let request = APIRequest(.get, "/x", query: [.init("fieldSelector", "metadata.name=a&b"), .init("limit", "5")])
        #expect(request.target == "/x?fieldSelector=metadata.name%3Da%26b&limit=5")
    }

    @Test(arguments: [
        (WatchScope(), "shop", "web", true), (WatchScope(namespace: "shop"), "shop", "web", true),
        (WatchScope(namespace: "shop"), "blog", "web", false),
        (WatchScope(namespace: "shop", name: "web"), "shop", "web", true),
        (WatchScope(namespace: "shop", name: "web"), "shop", "api", false),
    ])
    func scopes(_ scope: WatchScope, _ namespace: String, _ name: String, _ isCovered: Bool) {
        #expect(scope.covers(ObjectName(namespace: namespace, name: name)) == isCovered)
    }
}

// Made from plugins/ and examples/quickstart by `make bless`; a test keeps them in step. Do not edit.

import IngressTranslation

extension ScriptCatalog {
    /// The plugins that every Moongate knows as `plugin/NAME`.
    static let bundled = ScriptCatalog(plugins: [
        "ab-split": Plugin(
            main: #"""
                -- ab-split: an A/B/n experiment; sticky by user, with a header that says which variant it is.
                ---@type moongate.Script
                return {
                  name = "ab-split",
                  version = "1.0.0",

                  config = {
                    experiment = { type = "string", required = true, doc = "the experiment's name; it salts the assignment" },
                    layer      = { type = "string", doc = "experiments in one layer never overlap" },
                    slots      = { type = "range", default = "0-999", doc = "this experiment's slots of the layer's 1000" },
                    unit       = { type = "list", of = "string", default = { "cookie:uid", "header:x-user-id" },
                                   doc = "who a user is: the first of these that is present" },
                    variants   = { type = "map", required = true, doc = "the variants by name", of = {
                      weight  = { type = "number", min = 0, required = true, doc = "the share, against the sum of all weights" },
                      backend = { type = "backend", doc = "where it is served; absent: the rule's own backend" },
                    } },
                    header     = { type = "string", default = "x-experiment", doc = "the header that tells the variant" },
                  },

                  init = function(conf)
                    local sum = 0
                    for _, v in pairs(conf.variants) do sum = sum + v.weight end
                    if sum == 0 then error("variants needs at least one with a weight above 0", 0) end
                  end,

                  route = function(req, ctx)
                    local c = ctx.config
                    local unit = req:unit(c.unit)
                    if not unit then
                      ctx:tag("experiment", c.experiment .. "=none")
                      return
                    end

                    local weights = {}
                    for name, v in pairs(c.variants) do weights[name] = v.weight end
                    local s = moongate.split {
                      name = c.experiment, unit = unit, variants = weights,
                      layer = c.layer, slots = c.slots,
                    }
                    if not s.included then return end -- another experiment of the layer owns this user

                    local v = c.variants[s.variant]
                    if v.backend then ctx.upstream:use(v.backend) end
                    req.headers:set(c.header, c.experiment .. "=" .. s.variant)
                    ctx:tag("experiment", c.experiment)
                    ctx:tag("variant", s.variant)
                    ctx.state.variant = s.variant
                  end,

                  header_filter = function(req, res, ctx)
                    local variant = ctx.state.variant
                    if not variant then return end
                    res.headers:append("vary", "cookie")
                    res.headers:set(ctx.config.header, ctx.config.experiment .. "=" .. variant)
                  end,
                }

                """#),
        "cookie-canary": Plugin(
            main: #"""
                -- cookie-canary: an override cookie first, then a sticky share of visitors.
                -- The cookie holds who the visitor is, never which side they are on, so the share can be raised or lowered at any time
                -- and no replica needs any state.
                ---@type moongate.Script
                return {
                  name = "cookie-canary",
                  version = "1.0.0",

                  config = {
                    override = { type = "string", default = "canary", doc = "the cookie that forces a side: always or never" },
                    id       = { type = "string", default = "mg_id", doc = "the cookie that says who the visitor is" },
                    percent  = { type = "percent", default = 0, min = 0, max = 100, doc = "the share of visitors on the canary" },
                    max_age  = { type = "duration", default = "30d", doc = "how long a visitor is remembered" },
                    canary   = { type = "backend", required = true, doc = "the canary, as service:port" },
                  },

                  route = function(req, ctx)
                    local c = ctx.config
                    local forced = req.cookies:get(c.override)
                    if forced == "always" then
                      ctx.upstream:use(c.canary)
                      ctx:tag("variant", "canary")
                      return
                    elseif forced == "never" then
                      ctx:tag("variant", "stable")
                      return
                    end

                    local id = req.cookies:get(c.id)
                    if not id or id == "" then
                      id = moongate.uuid.v4()
                      ctx.state.new_id = id -- carried to header_filter
                    end

                    local s = moongate.split {
                      name = "canary:" .. ctx.ingress.name,
                      unit = id,
                      variants = { canary = c.percent, stable = 100 - c.percent },
                    }
                    if s.variant == "canary" then ctx.upstream:use(c.canary) end
                    ctx:tag("variant", s.variant)
                  end,

                  header_filter = function(req, res, ctx)
                    if ctx.state.new_id then
                      res.cookies:set(ctx.config.id, ctx.state.new_id, {
                        path = "/", max_age = ctx.config.max_age,
                        http_only = true, same_site = "Lax", secure = req.scheme == "https",
                      })
                    end
                  end,
                }

                """#),
        "header-canary": Plugin(
            main: #"""
                -- header-canary: send a request to the canary when a header says so.
                ---@type moongate.Script
                return {
                  name = "header-canary",
                  version = "1.0.0",

                  config = {
                    header  = { type = "string", default = "x-canary", doc = "the header that decides" },
                    value   = { type = "string", doc = "send to the canary when the header has exactly this value" },
                    pattern = { type = "regex", doc = "send to the canary when the header matches (PCRE2)" },
                    canary  = { type = "backend", required = true, doc = "the canary, as service:port" },
                  },

                  route = function(req, ctx)
                    local c = ctx.config
                    local v = req.headers:get(c.header)
                    if v == nil or v == "never" then return end

                    local hit
                    if c.value then hit = (v == c.value)
                    elseif c.pattern then hit = c.pattern:test(v)
                    else hit = (v == "always") end

                    if hit then
                      ctx.upstream:use(c.canary)
                      ctx:tag("variant", "canary")
                    end
                  end,
                }

                """#),
        "redirect": Plugin(
            main: #"""
                -- redirect: answer some paths with a redirect, without asking an upstream.
                ---@type moongate.Script
                return {
                  name = "redirect",
                  version = "1.0.0",

                  config = {
                    moved      = { type = "map", of = "string", default = {}, doc = "old path to new path or URL, exactly" },
                    pattern    = { type = "regex", doc = "what other paths must look like (PCRE2)" },
                    to         = { type = "string", doc = "where those go; $1 and ${name} stand for groups" },
                    status     = { type = "enum", values = { 301, 302, 303, 307, 308 }, default = 308, doc = "the status" },
                    keep_query = { type = "boolean", default = true, doc = "append the query of the request" },
                  },

                  init = function(conf)
                    if (conf.pattern == nil) ~= (conf.to == nil) then
                      error("pattern and to belong together: give both or neither", 0)
                    end
                    if conf.pattern == nil and next(conf.moved) == nil then
                      error("there is nothing to redirect: give moved, or pattern and to", 0)
                    end
                  end,

                  rewrite = function(req, ctx)
                    local c = ctx.config
                    local to = c.moved[req.path]
                    if not to and c.pattern then
                      local m = c.pattern:match(req.path)
                      if m then
                        to = c.to:gsub("%${([%w_]+)}", function(name) return m[name] or "" end)
                        to = to:gsub("%$(%d)", function(n) return m[tonumber(n)] or "" end)
                      end
                    end
                    if to then return moongate.redirect(c.status, to, { keep_query = c.keep_query }) end
                  end,
                }

                """#),
        "rewrite": Plugin(
            main: #"""
                -- rewrite: change the path by a pattern before the rule is chosen.
                ---@type moongate.Script
                return {
                  name = "rewrite",
                  version = "1.0.0",

                  config = {
                    pattern = { type = "regex", required = true, doc = "what a path must look like (PCRE2)" },
                    to      = { type = "string", required = true, doc = "the new path; $1 and ${name} stand for groups" },
                    query   = { type = "map", of = "string", default = {}, doc = "parameters to set; $1 and ${name} work" },
                    prefix_header = { type = "boolean", default = false,
                                      doc = "tell the upstream what was cut off the front, in X-Forwarded-Prefix" },
                  },

                  rewrite = function(req, ctx)
                    local c = ctx.config
                    local m = c.pattern:match(req.path)
                    if not m then return end

                    local function fill(template)
                      local s = template:gsub("%${([%w_]+)}", function(name) return m[name] or "" end)
                      return (s:gsub("%$(%d)", function(n) return m[tonumber(n)] or "" end))
                    end

                    local before, after = req.path, fill(c.to)
                    if after:sub(1, 1) ~= "/" then after = "/" .. after end
                    req.path = after -- normalised again before routing
                    for name, value in pairs(c.query) do req.query:set(name, fill(value)) end
                    if c.prefix_header and #before > #after and before:sub(-#after) == after then
                      req.headers:set("x-forwarded-prefix", before:sub(1, #before - #after))
                    end
                  end,
                }

                """#),
    ])
}

/// What `moongate demo` serves where there is no examples/quickstart.
enum Quickstart {
    static let ingress = #"""
        apiVersion: networking.k8s.io/v1
        kind: Ingress
        metadata:
          name: web
          namespace: shop
          annotations:
            # Scripts run in this order, phase by phase; of two that choose a backend, the later one has the last word.
            moongate.dev/scripts: |
              - script: plugin/redirect
                args: { moved: { /old: /new } }
              - script: plugin/rewrite
                args: { pattern: "^/v([0-9]+)(/.*)$", to: "$2", query: { version: "$1" } }
              - script: plugin/ab-split
                paths: ["/checkout"]
                args:
                  experiment: checkout
                  variants:
                    old: { weight: 50 }
                    new: { weight: 50, backend: "web-canary:80" }
              - script: plugin/cookie-canary
                paths: ["/cart"]
                args: { canary: "web-canary:80", percent: 10 }
              - script: plugin/header-canary
                args: { canary: "web-canary:80" }
        spec:
          ingressClassName: moongate
          rules:
            - host: shop.test
              http:
                paths:
                  - path: /
                    pathType: Prefix
                    backend: { service: { name: web, port: { number: 80 } } }
                  # A script with paths runs on these paths of the Ingress only.
                  - path: /cart
                    pathType: Prefix
                    backend: { service: { name: web, port: { number: 80 } } }
                  - path: /checkout
                    pathType: Prefix
                    backend: { service: { name: web, port: { number: 80 } } }

        """#
    static let services = #"""
        # Two versions of a shop. Without a cluster there is nobody to make EndpointSlices, so they stand here: a Service is
        # joined to its endpoints by the label kubernetes.io/service-name, as in a cluster.
        apiVersion: v1
        kind: Service
        metadata: { name: web, namespace: shop }
        spec:
          ports: [{ name: http, port: 80 }]
        ---
        apiVersion: discovery.k8s.io/v1
        kind: EndpointSlice
        metadata:
          name: web-1
          namespace: shop
          labels: { kubernetes.io/service-name: web }
        addressType: IPv4
        ports: [{ name: http, port: 9001, protocol: TCP }]
        endpoints:
          - addresses: ["127.0.0.1"]
            conditions: { ready: true }
        ---
        apiVersion: v1
        kind: Service
        metadata: { name: web-canary, namespace: shop }
        spec:
          ports: [{ name: http, port: 80 }]
        ---
        apiVersion: discovery.k8s.io/v1
        kind: EndpointSlice
        metadata:
          name: web-canary-1
          namespace: shop
          labels: { kubernetes.io/service-name: web-canary }
        addressType: IPv4
        ports: [{ name: http, port: 9002, protocol: TCP }]
        endpoints:
          - addresses: ["127.0.0.1"]
            conditions: { ready: true }

        """#
}

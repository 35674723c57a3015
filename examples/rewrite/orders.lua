-- orders.lua: /v2/orders/7 -> /orders/7?version=2; pages that have moved are redirected for good.
---@type moongate.Script
return {
  config = {
    pattern = { type = "regex", default = [[^/v(?<major>[0-9]+)(?<rest>/.*)?$]], doc = "paths with a version" },
    moved   = { type = "map", of = "string", default = {}, doc = "old path to new path or URL" },
  },

  rewrite = function(req, ctx)
    local to = ctx.config.moved[req.path]
    if to then return moongate.redirect(308, to, { keep_query = true }) end

    local m = ctx.config.pattern:match(req.path)
    if not m then return end
    req.path = m.rest or "/"                    -- made canonical again, and routed anew
    req.query:set("version", m.major)
    req.headers:set("x-forwarded-prefix", "/v" .. m.major)
  end,
}

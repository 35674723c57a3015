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

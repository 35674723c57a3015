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

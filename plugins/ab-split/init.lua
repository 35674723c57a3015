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

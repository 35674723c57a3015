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

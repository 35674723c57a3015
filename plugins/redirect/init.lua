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

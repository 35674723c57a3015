return { route = function(req, ctx) ctx:tag("a", 1) while true do pcall(function() while true do end end) end end }

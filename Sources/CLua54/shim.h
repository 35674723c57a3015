// The distribution's Lua 5.4, as installed: headers found by pkg-config.
#include <lua.h>
#include <lauxlib.h>
#include <lualib.h>

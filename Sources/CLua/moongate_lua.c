#include "moongate_lua.h"

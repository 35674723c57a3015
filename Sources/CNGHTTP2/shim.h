// The distribution's nghttp2: HTTP/2 framing, HPACK, flow control and the rules of messages, without any I/O.
#include <nghttp2/nghttp2.h>

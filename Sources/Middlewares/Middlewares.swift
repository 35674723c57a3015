// Middlewares

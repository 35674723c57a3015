// IngressTranslation

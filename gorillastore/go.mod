module github.com/coatcheck/session/gorillastore

go 1.25.0

replace github.com/coatcheck/session => ../

require (
	github.com/coatcheck/session v0.1.0
	github.com/gorilla/sessions v1.4.0
)

require github.com/gorilla/securecookie v1.1.2 // indirect

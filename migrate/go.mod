module github.com/coatcheck/session/migrate

go 1.25.0

replace github.com/coatcheck/session => ../

require (
	github.com/alexedwards/scs/v2 v2.9.0
	github.com/coatcheck/session v0.1.0
	github.com/gorilla/securecookie v1.1.2
	github.com/gorilla/sessions v1.4.0
)

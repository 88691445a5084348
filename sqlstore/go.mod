module github.com/coatcheck/session/sqlstore

go 1.25.0

require github.com/coatcheck/session v0.1.0

require github.com/gorilla/securecookie v1.1.2 // indirect

replace github.com/coatcheck/session => ../

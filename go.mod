module github.com/coatcheck/session

go 1.25.0

require github.com/gorilla/securecookie v1.1.2

module github.com/coatcheck/session/faults

go 1.26.0

require (
	github.com/anishathalye/porcupine v1.3.1
	github.com/coatcheck/session v0.0.0
	github.com/coatcheck/session/redisstore v0.0.0
	github.com/coatcheck/session/sqlstore v0.0.0
	github.com/jackc/pgx/v5 v5.12.0
	github.com/redis/go-redis/v9 v9.23.0
)

replace (
	github.com/coatcheck/session => ../
	github.com/coatcheck/session/redisstore => ../redisstore
	github.com/coatcheck/session/sqlstore => ../sqlstore
)

// A Fastify app whose sessions a Go service shares, with a part of the routes of app.js.
'use strict';

const env = process.env;

async function main() {
  const client = require('redis').createClient({ url: env.REDIS });
  await client.connect();
  const { RedisStore } = require('connect-redis');
  const app = require('fastify')();
  await app.register(require('@fastify/cookie'));
  await app.register(require('@fastify/session'), {
    secret: JSON.parse(env.SECRETS),
    cookieName: 'connect.sid',
    cookiePrefix: 's:',
    store: new RedisStore({ client }),
    saveUninitialized: false,
    cookie: { secure: false, sameSite: 'lax', ...(env.MAX_AGE ? { maxAge: Number(env.MAX_AGE) } : {}) },
  });
  app.get('/get', (req, reply) => {
    const { cookie, ...values } = JSON.parse(JSON.stringify(req.session));
    reply.send({ id: req.session.sessionId, values, maxAge: cookie.originalMaxAge });
  });
  app.get('/set', (req, reply) => {
    for (const [name, value] of Object.entries(JSON.parse(req.query.values))) req.session.set(name, value);
    reply.send(req.session.sessionId);
  });
  app.get('/destroy', async (req, reply) => { await req.session.destroy(); reply.send(''); });
  app.get('/regenerate', async (req, reply) => { await req.session.regenerate(); reply.send(req.session.sessionId); });
  app.get('/open', (req, reply) => reply.send(''));
  await app.listen({ port: Number(env.PORT), host: '127.0.0.1' });
}

main();

// s3rver, an S3 gateway that ends TLS in Node: `node s3rver.js S3RVER ACCESS_KEY SECRET_KEY ADDRESS CERTIFICATE KEY`, where S3RVER is
// the folder of the package. Objects go beside the certificate. Its own program has a single account with fixed keys.
'use strict'
const fs = require('node:fs')
const path = require('node:path')

const [s3rver, accessKey, secretKey, listen, cert, key] = process.argv.slice(2)
const Gateway = require(s3rver)
require(path.join(s3rver, 'lib/models/account')).DUMMY_ACCOUNT.createKeyPair(accessKey, secretKey)

const [address, port] = listen.split(':')
const files = { cert: fs.readFileSync(cert), key: fs.readFileSync(key) }
new Gateway({ address, port: Number(port), directory: path.join(path.dirname(cert), 'data'), silent: true, ...files }).run()

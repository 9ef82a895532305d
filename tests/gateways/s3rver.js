// s3rver, an S3 gateway that ends TLS in Node: `node s3rver.js S3RVER FOLDER PORT CERTIFICATE KEY ACCESS_KEY SECRET_KEY`, where
// S3RVER is the folder of the package. Its own program has a single account with fixed keys.
'use strict'
const fs = require('node:fs')
const path = require('node:path')

const [s3rver, directory, port, cert, key, accessKey, secretKey] = process.argv.slice(2)
const Gateway = require(s3rver)
require(path.join(s3rver, 'lib/models/account')).DUMMY_ACCOUNT.createKeyPair(accessKey, secretKey)

const files = { cert: fs.readFileSync(cert), key: fs.readFileSync(key) }
new Gateway({ address: '127.0.0.1', port: Number(port), directory, silent: true, ...files }).run()

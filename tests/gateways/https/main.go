// A small S3-like gateway that ends TLS with Go's crypto/tls: https ADDRESS CERTIFICATE KEY.
//
// It keeps what is put in memory and gives it back. It must build with every Go from 1.18 on, and needs nothing else.
package main

import (
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"sync"
)

type store struct {
	lock    sync.Mutex
	objects map[string][]byte
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	switch r.Method {
	case http.MethodPut:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.lock.Lock()
		s.objects[path] = body
		s.lock.Unlock()
		w.Header().Set("ETag", `"put"`)
	case http.MethodGet, http.MethodHead:
		s.lock.Lock()
		body, found := s.objects[path]
		s.lock.Unlock()
		if !found {
			http.Error(w, "NoSuchKey", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Header().Set("Content-Type", "binary/octet-stream")
		if r.Method == http.MethodGet {
			w.Write(body)
		}
	case http.MethodDelete:
		s.lock.Lock()
		delete(s.objects, path)
		s.lock.Unlock()
		w.WriteHeader(http.StatusNoContent)
	default:
		http.Error(w, "MethodNotAllowed", http.StatusMethodNotAllowed)
	}
}

func main() {
	gateway := &store{objects: map[string][]byte{"/": []byte("ready")}}
	log.Fatal(http.ListenAndServeTLS(os.Args[1], os.Args[2], os.Args[3], gateway))
}
